"""A draft cut out of its target: some layers, and the heaviest units of their width."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from distillspec.errors import DistillSpecError
from distillspec.models.loading.precision import cast_parameters
from distillspec.recipe.start import PrunedDraftConfig

_NEURONS, _HEADS, HIDDEN = "intermediate_size", "key_value_heads", "hidden_size"

# The width of each axis of a weight, by the end of the weight's name; None is never cut.
_Axes = Mapping[str, tuple[str | None, ...]]
_LLAMA: _Axes = {
    "self_attn.q_proj.weight": (_HEADS, HIDDEN),
    "self_attn.k_proj.weight": (_HEADS, HIDDEN),
    "self_attn.v_proj.weight": (_HEADS, HIDDEN),
    "self_attn.o_proj.weight": (HIDDEN, _HEADS),
    "self_attn.q_proj.bias": (_HEADS,),
    "self_attn.k_proj.bias": (_HEADS,),
    "self_attn.v_proj.bias": (_HEADS,),
    "self_attn.o_proj.bias": (HIDDEN,),
    "mlp.gate_proj.weight": (_NEURONS, HIDDEN),
    "mlp.up_proj.weight": (_NEURONS, HIDDEN),
    "mlp.down_proj.weight": (HIDDEN, _NEURONS),
    "mlp.gate_proj.bias": (_NEURONS,),
    "mlp.up_proj.bias": (_NEURONS,),
    "mlp.down_proj.bias": (HIDDEN,),
    "layernorm.weight": (HIDDEN,),
    ".norm.weight": (HIDDEN,),
    "embed_tokens.weight": (None, HIDDEN),
    "lm_head.weight": (None, HIDDEN),
}
_GPT_NEOX: _Axes = {
    "mlp.dense_h_to_4h.weight": (_NEURONS, None),
    "mlp.dense_h_to_4h.bias": (_NEURONS,),
    "mlp.dense_4h_to_h.weight": (None, _NEURONS),
}
_GPT2: _Axes = {  # its matrices are transposed: [in, out]
    "mlp.c_fc.weight": (None, _NEURONS),
    "mlp.c_fc.bias": (_NEURONS,),
    "mlp.c_proj.weight": (_NEURONS, None),
}


class _Family(NamedTuple):
    """Models that name their weights alike.

    Attributes:
        axes: The width of each axis of each weight.
        cuts: The widths that their configuration can express.
    """

    axes: _Axes
    cuts: frozenset[str]


_ALL = frozenset((_NEURONS, _HEADS, HIDDEN))
# Heads and channels are cut only in families that state the head size: for the others, engines
# derive it from the hidden size.
_FAMILIES = {
    "llama": _Family(_LLAMA, _ALL),
    "mistral": _Family(_LLAMA, _ALL),
    "qwen3": _Family(_LLAMA, _ALL),
    "qwen2": _Family(_LLAMA, frozenset((_NEURONS,))),
    "gpt_neox": _Family(_GPT_NEOX, frozenset((_NEURONS,))),
    "gpt2": _Family(_GPT2, frozenset((_NEURONS,))),
}


def pruned(target: PreTrainedModel, plan: PrunedDraftConfig) -> PreTrainedModel:
    """A model of the target's class, in eval mode, with copies of the kept weights.

    The plan names the layers. In each width, the units with the largest L2 norm over all weights
    that touch them stay (group norm, 2301.12900), in the target's order; of equal norms the first.
    Neurons and heads are chosen per layer, a key-value head together with the queries that read it.
    Channels are chosen once for all kept layers. The same target and plan give the same bits.

    Raises:
        DistillSpecError: A layer does not exist, or a width cannot be cut.
    """
    config = target.config
    if config.get_text_config(decoder=True) is not config:
        _refuse(target, "its text model is a part of it")
    # 1. Read from the plan which layers and how many units of each width are kept.
    kept = plan.kept_layers(int(config.num_hidden_layers))
    sizes = {
        name: int(size)
        for name in (_NEURONS, _HEADS, HIDDEN)
        if (size := getattr(plan, name)) is not None
    }
    axes = check_sizes(target, sizes)
    # 2. Choose the units of each width, by the norms of the weights in the kept layers.
    prefix = _layer_prefix(target)
    weights = target.state_dict()
    sources = _Sources(prefix, kept)
    used = {name: weights[name] for name in weights if sources.uses(name)}
    chosen = _Choice(used, axes, {name: _units(config, name) for name in sizes}, sizes, prefix)
    # 3. Fill a smaller model with parts of the target's weights.
    model = empty_model(target, smaller_config(config, kept, sizes))
    try:
        model.load_state_dict(
            {
                name: chosen.part(sources.of(name), weights[sources.of(name)])
                for name in model.state_dict()
            }
        )
    except (RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        _refuse(target, f"its weights do not follow its configuration ({reason})", error)
    model.generation_config = copy.deepcopy(target.generation_config)
    model.eval()
    return model


class _Sources:
    """Maps the names of the new weights to those of the target."""

    def __init__(self, prefix: str, kept: tuple[int, ...]) -> None:
        self._prefix, self._kept = prefix, kept

    def of(self, name: str) -> str:
        layer = _layer(name, self._prefix)
        if layer is None:
            return name
        rest = name[len(f"{self._prefix}{layer}") :]
        return f"{self._prefix}{self._kept[layer]}{rest}"

    def uses(self, name: str) -> bool:
        """Whether the draft contains this weight of the target."""
        return (layer := _layer(name, self._prefix)) is None or layer in self._kept


class _Choice:
    """Which units of each width are kept; `part` cuts a weight of the target to them."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        axes: _Axes,
        units: Mapping[str, int],
        sizes: Mapping[str, int],
        prefix: str,
    ) -> None:
        self._axes, self._units, self._prefix = axes, units, prefix
        touched: dict[tuple[str, int | None], list[Tensor]] = {}
        for name, weight in weights.items():
            for axis, width in axes_of(name, axes):
                if width in sizes:
                    # Shape [units, all else]: a row holds all of one unit, such as a head.
                    by_unit = weight.movedim(axis, 0).reshape(units[width], -1)
                    touched.setdefault(self._key(width, name), []).append(by_unit)
        self._kept = {key: _largest(parts, sizes[key[0]]) for key, parts in touched.items()}

    def part(self, name: str, weight: Tensor) -> Tensor:
        """The kept part of the target's weight `name`."""
        for axis, width in axes_of(name, self._axes):
            if width in self._units:
                # A unit spans `block` neighbouring rows: a head has many channels.
                block = weight.shape[axis] // self._units[width]
                kept = self._kept[self._key(width, name)].to(weight.device)
                rows = kept[:, None] * block + torch.arange(block, device=weight.device)
                weight = weight.index_select(axis, rows.flatten())
        return weight

    def _key(self, width: str, name: str) -> tuple[str, int | None]:
        """Channels are chosen for all layers together, other widths for each layer."""
        return width, None if width == HIDDEN else _layer(name, self._prefix)


def _largest(parts: Iterable[Tensor], keep: int) -> Tensor:
    """Indices of the `keep` rows with the largest norm over all parts [units, ...], ascending."""
    squares = sum(part.double().square().sum(1).cpu() for part in parts)
    assert isinstance(squares, Tensor)
    return squares.argsort(descending=True, stable=True)[:keep].sort().values


def check_sizes(target: PreTrainedModel, sizes: Mapping[str, int]) -> _Axes:
    """The widths of the target's weights.

    Raises:
        DistillSpecError: The family cannot be cut in a width, or `sizes` exceed the target.
    """
    config = target.config
    family = _FAMILIES.get(config.model_type)
    for name, size in sizes.items():
        if family is None or name not in family.cuts:
            able = [model for model, other in _FAMILIES.items() if name in other.cuts]
            raise DistillSpecError(
                f"{name} of a {config.model_type} model cannot be cut",
                where=f"pair.draft.{name}",
                fix=f"remove it: layers can be chosen in any model, {name} in {', '.join(able)}",
            )
        if size > _units(config, name):
            raise DistillSpecError(
                f"{name} {size} cannot be kept: the target has {_units(config, name)}",
                where=f"pair.draft.{name}",
                fix=f"set at most {_units(config, name)}",
            )
    return family.axes if family is not None else {}


def _units(config: PretrainedConfig, width: str) -> int:
    if width == _HEADS:
        return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    if width == _NEURONS and config.model_type == "gpt2":
        return int(config.n_inner or 4 * config.n_embd)
    return int(getattr(config, width))


def smaller_config(
    config: PretrainedConfig, kept: tuple[int, ...], sizes: Mapping[str, int]
) -> PretrainedConfig:
    """The configuration of the draft, including fields with one entry per layer."""
    layers = int(config.num_hidden_layers)
    smaller = copy.deepcopy(config)
    smaller.num_hidden_layers = len(kept)
    for name, value in vars(config).items():
        if "layer" in name and isinstance(value, list | tuple) and len(value) == layers:
            setattr(smaller, name, [value[layer] for layer in kept])
    first_with_window = getattr(config, "max_window_layers", None)
    if first_with_window is not None:
        smaller.max_window_layers = sum(layer < first_with_window for layer in kept)
    # With fewer heads or channels, hidden_size / heads no longer gives the head size.
    if sizes.keys() & {_HEADS, HIDDEN}:
        heads = int(config.num_attention_heads)
        smaller.head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    if _HEADS in sizes:
        smaller.num_key_value_heads = sizes[_HEADS]
        smaller.num_attention_heads = sizes[_HEADS] * (heads // _units(config, _HEADS))
    if HIDDEN in sizes:
        smaller.hidden_size = sizes[HIDDEN]
    if _NEURONS in sizes:
        setattr(smaller, "n_inner" if config.model_type == "gpt2" else _NEURONS, sizes[_NEURONS])
    return smaller


def empty_model(target: PreTrainedModel, config: PretrainedConfig) -> PreTrainedModel:
    """A model to load weights into, on the CPU, with the target's type and attention."""
    try:
        # Made from a dict, so that the configuration's own checks run.
        checked = type(config).from_dict(config.to_dict())
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            model = type(target)(checked)
    except Exception as error:  # of any class: configurations check themselves
        reason = str(error).strip().splitlines() or [type(error).__name__]
        _refuse(target, reason[-1], error)
    assert isinstance(model, PreTrainedModel)
    model.set_attn_implementation(target.config._attn_implementation)
    cast_parameters(model, target.dtype)
    return model


def _layer_prefix(target: PreTrainedModel) -> str:
    """The prefix of the layers' names, such as `model.layers.`."""
    layers = int(target.config.num_hidden_layers)
    prefixes = [
        f"{name}."
        for name, module in target.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == layers
    ]
    outer = [
        prefix
        for prefix in prefixes
        if not any(prefix != outside and prefix.startswith(outside) for outside in prefixes)
    ]
    if len(outer) != 1:
        _refuse(target, "its layers are not one list of modules")
    return outer[0]


def _layer(name: str, prefix: str) -> int | None:
    """The number of the layer that a weight belongs to, or None."""
    return int(name[len(prefix) :].split(".", 1)[0]) if name.startswith(prefix) else None


def axes_of(name: str, axes: _Axes) -> list[tuple[int, str]]:
    """The axes of a weight that can be cut, and their widths."""
    widths = next((suffix_widths for end, suffix_widths in axes.items() if name.endswith(end)), ())
    return [(axis, width) for axis, width in enumerate(widths) if width is not None]


def _refuse(target: PreTrainedModel, why: str, error: Exception | None = None) -> NoReturn:
    raise DistillSpecError(
        f"this target cannot be pruned ({type(target).__name__}): {why}",
        where="pair.draft",
        fix="change the kept layers or widths, or use a ready draft or {kind: random, shape: ...}",
    ) from error

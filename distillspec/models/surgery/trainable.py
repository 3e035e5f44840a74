"""Prepare a draft for training: which weights are trained, and how its forward is computed."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from distillspec.errors import DistillSpecError
from distillspec.models.bare import bare_model, describe_model
from distillspec.models.runners.compiled import compiler_available
from distillspec.models.runners.eager import vocabulary_size
from distillspec.models.runners.encoder_decoder import is_encoder_decoder, probe_row
from distillspec.models.surgery.hidden_states import token_logits
from distillspec.speculation.sampling import check_finite

_PROBE_TOKENS = 8
_FORWARDS = 2
_SAME = 1e-3  # relative to the largest logit: kernels may add in another order


def freeze_embeddings(draft: nn.Module) -> None:
    """Freeze the input embeddings, and an output head that is tied to them.

    Raises:
        DistillSpecError: No weight is left to train.
    """
    bare = bare_model(draft)
    for parameter in bare.get_input_embeddings().parameters():
        parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in draft.parameters()):
        raise DistillSpecError(
            "the draft's embeddings are all that would be trained",
            where="optimizer.freeze_embeddings",
            fix="remove it",
        )


def without_dropout(draft: PreTrainedModel) -> None:
    """Set every dropout rate to 0, in place; the draft's configuration keeps its rates.

    Distillation trains the draft's distribution. With dropout the draft would be trained, weighted
    and sampled with other distributions. The rates matter where `training` is set (`train_mode`).
    """
    without_rates: dict[int, PreTrainedConfig] = {}
    for module in draft.modules():
        rates = vars(module)  # attention stores its rate as a float
        for name, value in rates.items():
            if isinstance(value, float) and (_is_rate(name) or _is_dropout(module, name)):
                rates[name] = 0.0
        config = rates.get("config")
        if isinstance(module, GradientCheckpointingLayer) and isinstance(config, PreTrainedConfig):
            # One copy for all layers that share a configuration.
            rates["config"] = without_rates.setdefault(id(config), _without_rates(config))


def train_mode(draft: nn.Module) -> None:
    """Put a draft into the mode it is trained in: eval mode, except for LoRA's dropout.

    With `training` set, layers are random in many ways: dropout with a rate from the configuration,
    noise on a router's inputs, skipped layers, rounding of a router's weights. So it stays unset,
    except for layers that recompute activations, which need it.
    """
    draft.eval()
    for name, module in draft.named_modules():
        if _is_of_lora_dropout(name) or getattr(module, "gradient_checkpointing", False):
            module.training = True


@torch.no_grad()
def check_trains_as_it_decodes(draft: nn.Module) -> None:
    """Compare logits in training and eval mode on one short row; the draft ends in `train_mode`.

    Raises:
        DistillSpecError: The logits differ (without LoRA's dropout) or are not finite.
    """
    bare = bare_model(draft)
    # 1. Compute the logits that decoding uses.
    draft.eval()
    expected = _probed(bare)
    check_finite(f"the draft, {describe_model(bare)}", expected)
    # 2. Set the mode of training. LoRA's dropout is random on purpose, so it is off here.
    train_mode(draft)
    for name, module in draft.named_modules():
        if _is_of_lora_dropout(name):
            module.training = False
    # 3. Compare several forwards: random layers may give the expected logits by chance.
    tolerance = _SAME * max(1.0, float(expected.abs().max()))
    for _ in range(_FORWARDS):
        # `not <=` is also true for NaN.
        if not float((_probed(bare) - expected).abs().max()) <= tolerance:
            raise DistillSpecError(
                f"the logits of {type(bare).__name__} differ between training and decoding: its "
                "layers draw random numbers that cannot be switched off",
                where="pair.draft",
                fix="use a draft of another architecture",
            )
    train_mode(draft)


def _probed(bare: PreTrainedModel) -> Tensor:
    """Logits of a short row, with 0 for masked tokens."""
    device = bare.device
    with torch.autocast(device.type, enabled=False):
        if is_encoder_decoder(bare):
            logits = token_logits(bare, probe_row(bare)[0].to(device), None)
        else:
            tokens = torch.arange(_PROBE_TOKENS, device=device)[None] % vocabulary_size(bare)
            logits = bare(input_ids=tokens, use_cache=False).logits
    return logits.float().masked_fill(logits == -torch.inf, 0.0)


def _is_rate(name: str) -> bool:
    return "drop" in name


def _is_dropout(module: nn.Module, name: str) -> bool:
    return name == "p" and isinstance(module, _DropoutNd)


def _is_of_lora_dropout(name: str) -> bool:
    return "lora_dropout" in name.split(".")


def _without_rates(config: PreTrainedConfig) -> PreTrainedConfig:
    """A copy without dropout, for layers that read their rates when they are called."""
    copied = copy.deepcopy(config)
    for name, value in vars(copied).items():
        if isinstance(value, float) and _is_rate(name):
            setattr(copied, name, 0.0)
    return copied


def checkpoint_activations(draft: nn.Module) -> None:
    """Recompute activations in the backward pass, layer by layer.

    Raises:
        DistillSpecError: The architecture does not support it.
    """
    bare = bare_model(draft)
    if not bare.supports_gradient_checkpointing:
        raise DistillSpecError(
            f"{type(bare).__name__} cannot recompute its activations",
            where="hardware.gradient_checkpointing",
            fix="set it to false, and lower distill.micro_batch_size instead",
        )
    # transformers has renamed the method and warns about the older name.
    name = "activation_checkpointing_enable"
    enable = getattr(bare, name, None) or bare.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def compile_forward(draft: nn.Module) -> None:
    """Compile the layers for rows of any length; copies of the draft are not compiled.

    Raises:
        DistillSpecError: There is no C++ compiler, on a CPU.
    """
    bare = bare_model(draft)
    if bare.device.type == "cpu" and not compiler_available():
        raise DistillSpecError(
            "torch.compile on a CPU needs a C++ compiler, and none is installed",
            where="hardware.compile",
            fix="install g++ (or name one in CXX), or set hardware.compile=false",
        )
    for part in bodies(bare):
        part.compile(dynamic=True)


def layer_lists(draft: nn.Module) -> list[nn.ModuleList]:
    """The transformer layers in order: one list, or the encoder's and the decoder's."""
    return [
        max(_outer_lists(body), key=len, default=nn.ModuleList())
        for body in bodies(bare_model(draft))
    ]


def bodies(bare: PreTrainedModel) -> list[nn.Module]:
    """The modules that compute hidden states: the model, or its encoder and decoder."""
    if is_encoder_decoder(bare):
        return [bare.get_encoder(), bare.get_decoder()]
    return [bare.base_model]


def _outer_lists(body: nn.Module) -> list[nn.ModuleList]:
    """Module lists that are in no other list: layers, but not the parts or experts of a layer."""
    lists = []
    for child in body.children():
        lists += [child] if isinstance(child, nn.ModuleList) else _outer_lists(child)
    return lists

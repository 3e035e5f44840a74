"""How long a text a model can read, by its configuration: known before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from distillspec.errors import DistillSpecError
from distillspec.recipe.schema import Recipe

UNLIMITED = 1 << 24  # the most that data.max_prompt_tokens takes
_LENGTH_KEYS = ("max_position_embeddings", "n_positions")
_LONG = ("longrope", "su")  # "su" is what the first Phi-3 called it


class ContextLength(NamedTuple):
    """How long a text a model can read.

    Attributes:
        positions: Tokens of the longest text.
        reason: Why there are not more; empty for the usual reason.
    """

    positions: int
    reason: str = ""


def context_of(config: Mapping[str, Any]) -> ContextLength:
    """Read the context length from config.json, or from the attributes of a configuration.

    Some kinds of RoPE change all frequencies once a text grows beyond a length. What was cached
    before is then rotated by other frequencies than a forward over the entire text would use, and
    the rows of a batch depend on the longest of them. Such a text is not read at all.
    """
    inner = config.get("text_config")
    text = inner if isinstance(inner, Mapping) else config
    is_relative = "relative_attention_num_buckets" in text  # T5 has no longest text, and says 512
    lengths = () if is_relative else (text.get(key) for key in _LENGTH_KEYS)
    positions = next((n for n in lengths if isinstance(n, int) and n > 0), UNLIMITED)
    for kind, length in _switches(text):
        if length < positions:
            positions = length
            reason = f"its RoPE ({kind}) changes its frequencies beyond {length} tokens"
            return ContextLength(positions, reason)
    return ContextLength(positions)


def _switches(config: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    """By kind of RoPE, where its frequencies change; shortest first."""
    found = []
    # Phi-3 keeps the original length outside the RoPE settings.
    top = config.get("original_max_position_embeddings")
    for rope in _ropes(config):
        kind = str(rope.get("rope_type") or rope.get("type") or "")
        original = top or rope.get("original_max_position_embeddings")
        if kind in _LONG and isinstance(original, int) and original > 0:
            found.append((kind, original))
    return sorted(found, key=lambda entry: entry[1])


def _ropes(config: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """The parameters of each RoPE: one for the model, or one for each kind of layer."""
    for key in ("rope_parameters", "rope_scaling"):
        given = config.get(key)
        if isinstance(given, Mapping):
            yield given
            yield from (inner for inner in given.values() if isinstance(inner, Mapping))


def check_rows_fit(recipe: Recipe, contexts: Iterable[ContextLength], source: str = "") -> None:
    """DistillSpecError where a row of the recipe may be longer than a model's context.

    source: the recipe's file, for the error's place.
    """
    data, origins = recipe.data, recipe.distill.origins
    needed = data.max_prompt_tokens + data.max_response_tokens
    drafted = recipe.distill.speculative.gamma if "speculative" in origins else 0
    shortest = min(contexts, default=ContextLength(UNLIMITED))
    whole, reason = shortest.positions, f": {shortest.reason}" if shortest.reason else ""
    holds, drafts = whole - drafted, f" next to {drafted} drafted tokens" if drafted else ""
    before = f"{source}: " if source else ""
    if needed > holds:
        raise DistillSpecError(
            f"a row may have {needed} tokens, and the pair's contexts hold {holds}{drafts}{reason}",
            where=f"{before}data.max_prompt_tokens={data.max_prompt_tokens}, "
            f"data.max_response_tokens={data.max_response_tokens}",
            fix=f"lower them to {holds} together",
        )
    packing = recipe.distill.packing
    if packing is not None and packing > whole:
        raise DistillSpecError(
            f"a packed row may have {packing} tokens, and the pair's contexts hold {whole}{reason}",
            where=f"{before}distill.packing={packing}",
            fix=f"lower it to {whole}; more sequences a forward: distill.micro_batch_size",
        )

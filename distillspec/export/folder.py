"""Export of a draft as a plain Hugging Face folder, and checks that it is the trained draft."""

from __future__ import annotations

import copy
import errno
import json
import logging
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from distillspec.errors import DistillSpecError
from distillspec.export.old_readers import add_old_keys
from distillspec.measure.exact.corpus_alpha import acceptance, surprise
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.loading.precision import cast_parameters
from distillspec.models.loading.tied_embeddings import state_tying, tied_as_it_is
from distillspec.models.sampling.generate import DrawnText
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap, attach_token_map
from distillspec.models.vocabulary.tokenizer_pair import check_pair
from distillspec.models.vocabulary.trimmed_head import kept_tokens, trim_head, whole_head
from distillspec.recipe.written_files import HOT_TOKENS, MODEL_FILES
from distillspec.runtime import atomic
from distillspec.speculation.sampling import SamplingPolicy

log = logging.getLogger(__name__)

_PROBED = 8  # tokens of the row that is compared
_ROUNDING = 0.02  # of the largest logit, in bfloat16


def export_draft(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    folder: Path,
    target_vocabulary: int,
    num_assistant_tokens: int,
    card: str,
    dtype: torch.dtype = torch.bfloat16,
    stop_ids: Collection[int] = (),
) -> Path:
    """Write `model` as a folder that every engine can serve. `model` is not changed.

    The folder is complete or absent, and replaces an older one. transformers 5 and 4.57 read the
    same model; if 4.57 has no keys for the model's RoPE, README.md says so. Engines cannot load a
    trimmed head: it is written with all rows, and its token ids in a file (HOT_TOKENS).

    Args:
        model: A plain model, with adapters merged.
        tokenizer: The pair's tokenizer.
        folder: Where to write.
        target_vocabulary: Rows of the target's embedding; the draft gets as many.
        num_assistant_tokens: The gamma for generation_config.json.
        card: Text of README.md (export.card).
        dtype: Of the written weights.
        stop_ids: Ids of tokens that end a text, for generation_config.json; default: the draft's.

    Raises:
        DistillSpecError: The disk is full or read-only, or the tokenizer has tokens beyond the
            target's vocabulary.
    """
    # 1. Check the tokenizer against the target's size before any work.
    check_pair(tokenizer, tokenizer, target_vocabulary, target_vocabulary, str(folder))
    # 2. A copy with the full head, the target's vocabulary size and the written dtype.
    draft = copy.deepcopy(model).cpu()
    trimmed_tokens = kept_tokens(draft)
    whole_head(draft)
    fit_vocabulary(draft, target_vocabulary)
    cast_parameters(draft, dtype)
    draft.config.dtype = dtype
    draft.generation_config = _generation_config(draft, num_assistant_tokens, sorted(stop_ids))
    # 3. Write the folder and load it again, before it replaces the older one.
    with atomic.replacing_folder(folder, MODEL_FILES) as temporary:
        save_model(draft, temporary)
        tokenizer.save_pretrained(temporary)
        unreadable = add_old_keys(temporary)
        _check_reload(draft, temporary, folder)
        if trimmed_tokens is not None:
            (temporary / HOT_TOKENS).write_text(
                json.dumps(trimmed_tokens.tolist()), encoding="utf-8"
            )
        (temporary / "README.md").write_text(_readme(card, unreadable), encoding="utf-8")
    log.info("draft exported to %s (%s, vocabulary %d)", folder, dtype, target_vocabulary)
    return folder


def _check_reload(draft: PreTrainedModel, written: Path, folder: Path) -> None:
    """Raise DistillSpecError if the folder, loaded strictly, is not the saved model.

    This happens if the configuration contradicts the weights (a tied head, a size).
    """
    again = load_model(str(written), dtype=draft.dtype, what="exported draft")
    # With tied weights under each of their names.
    stored = dict(draft.named_parameters(remove_duplicate=False))
    differing = [
        name
        for name, weight in again.named_parameters(remove_duplicate=False)
        if name not in stored or not torch.equal(weight, stored[name])
    ]
    with torch.no_grad():
        row = torch.arange(_PROBED)[None] % _table(again.get_input_embeddings()).shape[0]
        inputs = {"input_ids": row}
        if draft.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = row
        p, q = (model(**inputs).logits.float() for model in (draft.eval(), again))
    # `not <=`, so that nan from broken weights fails too. Kernels may differ in rounding.
    alike = p.shape == q.shape and bool((p - q).abs().max() <= _ROUNDING * p.abs().max())
    if differing or not alike:
        raise DistillSpecError(
            "the exported folder does not load as the draft that was saved: "
            + (f"{differing[0]} differs" if differing else "its logits differ"),
            where=str(folder),
            fix="check config.json and the weights (nan?); nothing was written",
        )


def save_model(draft: PreTrainedModel, folder: Path) -> None:
    """save_pretrained without its progress bar. A system error stays an OSError."""
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    state_tying(draft)
    try:
        draft.save_pretrained(folder)
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors makes files that only their owner can read
    except SafetensorError as error:
        # safetensors wraps the system's error: `... No space left on device (os error 28)`.
        code = re.search(r"os error (\d+)", str(error))
        raise OSError(int(code.group(1)) if code else errno.EIO, str(error)) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()


def fit_vocabulary(model: PreTrainedModel, vocab_size: int) -> None:
    """Resize the embedding and the output head to `vocab_size` rows, in place.

    Rows beyond the tokenizer are cut off, or added as the mean of the others. The logit of a mean
    row is the mean of the logits, so its probability is their geometric mean: at most 1/vocabulary
    (inequality of the means), and for a trained model far less, for any text. A row of zeros would
    get exp(0), which can be the largest of all.
    """
    rows = _table(model.get_input_embeddings()).shape[0]
    for config in (model.config, model.config.get_text_config(decoder=True)):
        pad = getattr(config, "pad_token_id", None)
        if pad is not None and pad >= vocab_size:
            config.pad_token_id = None  # an embedding cannot have this padding id
    if rows == vocab_size:
        return
    # New rows are overwritten below.
    with tied_as_it_is(model):
        model.resize_token_embeddings(vocab_size, mean_resizing=False)
    if rows > vocab_size:
        return
    head = model.get_output_embeddings()
    bias = getattr(head, "bias", None)
    tables = [_table(model.get_input_embeddings()), _table(head)]
    if isinstance(bias, Tensor):
        tables.append(bias)
    with torch.no_grad():
        for table in tables:
            table[rows:] = table[:rows].float().mean(dim=0).to(table.dtype)


def _table(module: torch.nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def _generation_config(
    draft: PreTrainedModel, num_assistant_tokens: int, stop_ids: list[int]
) -> GenerationConfig:
    """Token ids and gamma. Sampling settings belong to the target."""
    ids = draft.generation_config or GenerationConfig.from_model_config(draft.config)
    rows, pad = _table(draft.get_input_embeddings()).shape[0], ids.pad_token_id
    if pad is not None and pad >= rows:
        pad = None  # beyond the embedding
    ends = (stop_ids if len(stop_ids) > 1 else stop_ids[0]) if stop_ids else ids.eos_token_id
    return GenerationConfig(
        bos_token_id=ids.bos_token_id,
        eos_token_id=ends,
        pad_token_id=pad,
        decoder_start_token_id=ids.decoder_start_token_id,
        num_assistant_tokens=num_assistant_tokens,
        num_assistant_tokens_schedule="constant",
        assistant_confidence_threshold=0.0,
    )


# --- after the evaluation ------------------------------------------------------------------------


def update_draft(folder: Path, *, num_assistant_tokens: int, card: str) -> None:
    """Write the measured gamma, and the card with its numbers, into an exported folder."""
    path = folder / "generation_config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings["num_assistant_tokens"] = num_assistant_tokens
        unreadable = add_old_keys(folder)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DistillSpecError(
            "not a draft exported by this project: its configuration cannot be read",
            where=str(folder),
            fix="export the draft again",
        ) from error
    atomic.write_json(path, settings)
    atomic.write_text(folder / "README.md", _readme(card, unreadable))


def _readme(card: str, unreadable: str | None) -> str:
    return card if unreadable is None else f"{card.rstrip()}\n\n{unreadable}\n"


# --- proof ---------------------------------------------------------------------------------------


def verify_export(
    folder: Path,
    target: PreTrainedModel,
    texts: Sequence[DrawnText],
    policy: SamplingPolicy,
    *,
    expected_alpha: float,
    tolerance: float = 0.01,
    dtype: torch.dtype = torch.float32,
    vocab_size: int | None = None,
    kept: Sequence[int] | None = None,
    token_map: CrossTokenizerMap | None = None,
) -> float:
    """Reload `folder` strictly and measure its alpha on `texts`.

    Args:
        folder: The exported draft.
        target: The target that drew the texts.
        texts: The texts on which alpha is measured.
        policy: Makes distributions from logits.
        expected_alpha: Alpha in training, on the same texts, policy and vocabulary.
        tolerance: Largest accepted difference to `expected_alpha`.
        dtype: Of the reloaded draft.
        vocab_size: Tokens that target and draft share; alpha is over these. None: over all rows.
        kept: Tokens of a trimmed head, which is trimmed again.
        token_map: Map to a draft with another tokenizer and vocabulary size.

    Returns:
        Alpha in [0, 1]. A warning is logged if padding rows change it.

    Raises:
        DistillSpecError: Folder and target differ in size, or alpha is not the expected one.
    """
    draft = load_model(str(folder), dtype=dtype, device=target.device, what="exported draft")
    load_tokenizer(str(folder), what="exported draft")
    rows, wanted = (_table(m.get_input_embeddings()).shape[0] for m in (draft, target))
    if rows != wanted and token_map is None:
        raise DistillSpecError(
            f"the exported draft has a vocabulary of {rows} tokens, the target {wanted}",
            where=str(folder),
            fix="export the draft again for this target",
        )
    if kept is not None:
        trim_head(draft, kept)
    if token_map is not None:
        attach_token_map(draft, token_map)
    alpha = acceptance(target, draft, texts, policy, vocab_size=vocab_size).mean()
    # `not <=`, so that nan from broken weights fails too.
    if not abs(alpha - expected_alpha) <= tolerance:
        raise DistillSpecError(
            f"the exported draft is not the trained draft: alpha {alpha:.4f}, in training "
            f"{expected_alpha:.4f} (tolerance {tolerance:g})",
            where=str(folder),
            fix="do not serve this folder; export again, in float32 if bfloat16 is too coarse",
        )
    log.info("exported draft reloaded: alpha %.4f, in training %.4f", alpha, expected_alpha)
    if vocab_size is not None and vocab_size < wanted:
        padded_alpha = acceptance(target, draft, texts, policy).mean()
        if abs(padded_alpha - alpha) > tolerance:
            log.warning(
                "the target gives padding rows probability (tokens from %d on, which no text has): "
                "an engine that does not mask them has alpha %.4f instead of %.4f",
                vocab_size,
                padded_alpha,
                alpha,
            )
    return alpha


def verify_reload(
    folder: Path,
    trained: PreTrainedModel,
    texts: Sequence[DrawnText],
    *,
    vocab_size: int | None = None,
    tolerance: float = 0.005,
    dtype: torch.dtype = torch.bfloat16,
) -> float:
    """Reload `folder` strictly and measure its loss on `texts`: the check without a target.

    Args:
        folder: The exported draft.
        trained: The draft that was exported. Its weights are rounded to `dtype` for the comparison,
            like those in the folder.
        texts: The texts on which the loss is measured.
        vocab_size: Tokens that target and draft share; the loss is over these.
        tolerance: Largest accepted difference of the losses.
        dtype: Of the weights in the folder.

    Returns:
        The loss in nats per token.

    Raises:
        DistillSpecError: The size or the loss differs from the trained draft's.
    """
    draft = load_model(
        str(folder), dtype=torch.float32, device=trained.device, what="exported draft"
    )
    load_tokenizer(str(folder), what="exported draft")
    rounded = copy.deepcopy(trained)
    # Rounded like the stored weights, then float32 like the reloaded draft.
    cast_parameters(rounded, dtype)
    cast_parameters(rounded, torch.float32)
    rows, wanted = (_table(m.get_input_embeddings()).shape[0] for m in (draft, rounded))
    nats, expected = (surprise(m, texts, vocab_size=vocab_size).mean() for m in (draft, rounded))
    # `not <=`, so that nan from broken weights fails too.
    if rows != wanted or not abs(nats - expected) <= tolerance:
        raise DistillSpecError(
            f"the exported draft is not the trained draft: {rows} tokens and a held-out loss of "
            f"{nats:.4f} nats, but {wanted} and {expected:.4f} were expected (tolerance of the "
            f"loss {tolerance:g})",
            where=str(folder),
            fix="do not serve this folder; export again",
        )
    log.info("exported draft reloaded: loss %.4f nats, expected %.4f", nats, expected)
    return nats

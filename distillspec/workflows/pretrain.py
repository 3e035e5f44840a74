"""The verb `pretrain`: a pretraining recipe becomes a model folder.

The nano pair was made with it.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from distillspec.assembly.pair import device_of, dtype_of
from distillspec.corpus.batches.windows import Windows, pack, validation_rows
from distillspec.corpus.sources.code_files import CorpusFiles
from distillspec.corpus.sources.documents import documents
from distillspec.errors import DistillSpecError
from distillspec.export.folder import save_model
from distillspec.export.old_readers import add_old_keys
from distillspec.measure.exact.corpus_alpha import entropy
from distillspec.models.loading.digest import model_digest
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.loading.precision import cast_parameters
from distillspec.models.runners.eager import max_context_length
from distillspec.models.sampling.generate import DrawnText
from distillspec.models.surgery.random_llama import random_llama
from distillspec.models.vocabulary.train_tokenizer import split_by, train_tokenizer
from distillspec.recipe.capacity import check_memory, check_threads, llama_parameters, trained_bytes
from distillspec.recipe.loading import dump_yaml
from distillspec.recipe.output import RUNS, check_output, output_folder, replaceable
from distillspec.recipe.pretraining import PretrainRecipe
from distillspec.recipe.written_files import README, TOKENIZER_FILES, mark_written
from distillspec.runtime import atomic, provenance
from distillspec.runtime.lock import run_lock
from distillspec.runtime.plain_files import BoundedText, read_json
from distillspec.runtime.terminal import Terminal
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.training.pretrain import PretrainProgress, held_out_nats, pretrain
from distillspec.training.state_file import previous_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

console = Terminal()


class _Text(NamedTuple):
    """The corpus as tokens.

    Attributes:
        training: All training texts in one row, shape [T].
        held_out: All held-out texts in one row, shape [T].
        rows: Held-out rows of the validation, shape [B, context].
    """

    training: torch.Tensor
    held_out: torch.Tensor
    rows: torch.Tensor


def run(recipe: PretrainRecipe, *, resume: bool) -> int:
    """Train the model and write it to recipe.output; the run folder is RUNS/<name>.

    Raises:
        DistillSpecError: The recipe was started before and `resume` is False, or it has changed in
            more than its length since then.
    """
    folder, output = RUNS / recipe.name, output_folder(recipe)
    # An earlier process may have been killed while it replaced the model.
    atomic.recover_folder(output, replaceable(recipe))
    check_output(recipe, folder, "output")
    if (folder / "state.pt").exists() and not resume:
        raise DistillSpecError(
            "this recipe has been started before",
            where=str(folder),
            fix="add --resume to continue it, or delete that folder to start again",
        )
    device = device_of(recipe.hardware)
    if recipe.hardware.threads is not None:
        check_threads(recipe.hardware.threads, "hardware.threads")
        torch.set_num_threads(recipe.hardware.threads)
    with run_lock(folder):
        # 1. The corpus; it must be the one that the run began with.
        files = documents(recipe.corpus, recipe.held_out_percent)
        _check_identity(recipe, files, folder / "identity.json")
        atomic.write_text(folder / "recipe.yaml", dump_yaml(recipe))
        record = provenance.RunLog(folder / "run.json", provenance.gather())
        # 2. Tokenizer, packed text and initial model.
        tokenizer = _tokenizer(recipe, files, folder)
        text = _packed(recipe, files, tokenizer, device)
        model = _initial_model(recipe, tokenizer).to(device)  # type: ignore[arg-type]
        started_from = model_digest(model) if recipe.start_from is not None else None
        _check_start(started_from, folder / "start.json")
        console.print(
            f"{model.num_parameters():,} parameters; {len(files.training):,} texts, "
            f"{text.training.numel():,} tokens; {len(files.held_out):,} texts held out, "
            f"{text.held_out.numel():,} tokens",
            highlight=False,
        )
        # 3. Train, then write the result and the model.
        final = _trained(recipe, model, text, folder, device)
        facts = _facts(model, text, files, final, started_from)
        atomic.write_json(folder / "result.json", facts)
        _write_model(model, tokenizer, output, replaceable(recipe))
        record.record(tokens=final.tokens, finished=True)
    console.print(json.dumps(facts, indent=2))
    console.print(f"model written to {output}", highlight=False)
    return 0


def _packed(
    recipe: PretrainRecipe,
    files: CorpusFiles,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> _Text:
    end_token, plan = int(tokenizer.eos_token_id), recipe.train
    training = pack(files.training, tokenizer, end_token)
    held_out = pack(files.held_out, tokenizer, end_token)
    rows = validation_rows(held_out, context=plan.context, rows=plan.validation_rows)
    return _Text(training, held_out, rows.to(device))


def _trained(
    recipe: PretrainRecipe,
    model: PreTrainedModel,
    text: _Text,
    folder: Path,
    device: torch.device,
) -> PretrainProgress:
    """Train in place, then average with the initial weights if the recipe asks for it."""
    plan, precision = recipe.train, dtype_of(recipe.hardware.precision, device)
    start: dict[str, torch.Tensor] = {}
    # A copy, because training changes the weights in place.
    if plan.start_share:
        start = {name: weight.clone() for name, weight in model.named_parameters()}
    final = pretrain(
        model,
        Windows(text.training, context=plan.context, batch_size=plan.batch_size, seed=recipe.seed),
        text.rows,
        plan,
        folder=folder,
        precision=precision,
        report=lambda progress: console.print(_line(progress, plan.max_steps), highlight=False),
    )
    if not plan.start_share:
        return final
    average_with(model, start, plan.start_share)
    nats = held_out_nats(model, text.rows, plan.batch_size, precision)
    console.print(
        f"averaged with {recipe.start_from}: held out {final.validation_nats_per_token:.4f}"
        f" -> {nats:.4f} nats/token",
        highlight=False,
    )
    return final._replace(validation_nats_per_token=nats)


def _facts(
    model: PreTrainedModel,
    text: _Text,
    files: CorpusFiles,
    final: PretrainProgress,
    started_from: str | None,
) -> dict[str, Any]:
    """What result.json holds."""
    nats = final.validation_nats_per_token
    bytes_per_token = sum(len(f.text.encode()) for f in files.held_out) / text.held_out.numel()
    return {
        "parameters": model.num_parameters(),
        "started_from": started_from,
        "training_tokens": final.tokens,
        "seconds": final.seconds,
        "nats_per_token": nats,
        "bits_per_byte": nats / math.log(2) / bytes_per_token,
        "entropy_nats_per_token": _entropy(model, text.rows),
    }


def _check_identity(recipe: PretrainRecipe, files: CorpusFiles, path: Path) -> None:
    """Check that a resumed run has the recipe that it began with, apart from its length."""
    digest = hashlib.sha256()
    for file in files.training:
        digest.update(json.dumps(file).encode())
    identity = {
        "corpus": digest.hexdigest(),
        "seed": recipe.seed,
        # Keys of version 0.1, so that its runs can be resumed.
        "tokenizer": {
            "train_vocabulary": recipe.tokenizer.vocab_size,
            "take_from": recipe.tokenizer.take_from,
            **({"pattern": recipe.tokenizer.pattern} if recipe.tokenizer.pattern else {}),
        },
        "model": recipe.model.model_dump() if recipe.model else None,
        "start_from": recipe.start_from,
        "context": recipe.train.context,
        "batch_size": recipe.train.batch_size,
        **({} if recipe.train.optimizer == "muon" else {"optimizer": recipe.train.optimizer}),
    }
    if not path.exists():
        atomic.write_json(path, identity)
        return
    fix = "give the recipe another name, or delete that run folder"
    stored = read_json(BoundedText(path, "what this run was started with", fix), dict[str, Any])
    if not _has_trained(path.parent) and stored != identity:
        # The recipe was corrected before any step, so only the files of the old one are removed.
        shutil.rmtree(path.with_name("tokenizer"), ignore_errors=True)
        path.with_name("start.json").unlink(missing_ok=True)
        atomic.write_json(path, identity)
        return
    names = {**stored, **identity}
    changed = [name for name in names if stored.get(name) != identity.get(name)]
    if changed:
        raise DistillSpecError(
            f"this run was started with another {', '.join(changed)}",
            where=str(path.parent),
            fix="give the recipe another name, or delete that run folder",
        )


def _has_trained(folder: Path) -> bool:
    state = folder / "state.pt"
    return any(path.exists() for path in (state, previous_of(state), folder / "result.json"))


def _check_start(digest: str | None, path: Path) -> None:
    """Check that a resumed run has the initial weights that it began with."""
    if not path.exists():
        atomic.write_json(path, {"model": digest})
        return
    fix = "give the recipe another name, or delete that run folder"
    stored = BoundedText(path, "the digest of what this run began with", fix)
    if read_json(stored, dict[str, str | None]).get("model") != digest:
        raise DistillSpecError(
            "the weights in start_from are not those that this run began with",
            where=str(path.parent),
            fix="restore them, or delete that folder to start again; if this run has finished and "
            "replaced them, nothing is left to do",
        )


@torch.no_grad()
def average_with(model: torch.nn.Module, start: dict[str, torch.Tensor], share: float) -> None:
    """Average in place: weights <- share * start + (1 - share) * weights; tied weights once."""
    for name, weight in model.named_parameters():
        weight.lerp_(start[name], share)


def _tokenizer(recipe: PretrainRecipe, files: CorpusFiles, folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of another model, or one that is trained and kept in the run folder."""
    plan = recipe.tokenizer
    if plan.take_from is not None:
        taken = load_tokenizer(plan.take_from, what="tokenizer.take_from")
        if plan.pattern is not None:
            split_by(taken, plan.pattern)
        return taken
    tokenizer_folder = folder / "tokenizer"
    if not tokenizer_folder.exists():
        assert plan.vocab_size is not None
        trained = train_tokenizer(
            (f.text for f in files.training), plan.vocab_size, plan.pattern or "qwen2"
        )
        with atomic.replacing_folder(tokenizer_folder, TOKENIZER_FILES) as temporary:
            trained.save_pretrained(temporary)
    return load_tokenizer(str(tokenizer_folder))


def _initial_model(recipe: PretrainRecipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Random weights in the shape of the recipe, or the weights of start_from; float32."""
    if recipe.model is not None:
        size = llama_parameters(recipe.model, len(tokenizer))
        check_memory(size, trained_bytes(recipe.hardware), "model")
        return random_llama(
            recipe.model,
            vocab_size=len(tokenizer),
            end_token=int(tokenizer.eos_token_id),
            seed=recipe.seed,
        )
    assert recipe.start_from is not None, "the schema requires model or start_from"
    where = f"start_from={recipe.start_from}"
    model = load_model(recipe.start_from, dtype=torch.float32, what="start_from")
    start_tokenizer = load_tokenizer(recipe.start_from, what="start_from")
    if start_tokenizer.get_vocab() != tokenizer.get_vocab() or model.config.vocab_size < len(
        tokenizer
    ):
        raise DistillSpecError(
            f"the model knows {len(start_tokenizer)} tokens, and they are not the {len(tokenizer)} "
            "tokens of the tokenizer",
            where=where,
            fix="set tokenizer.take_from to the folder in start_from",
        )
    if recipe.train.context > max_context_length(model):
        raise DistillSpecError(
            f"train.context={recipe.train.context} is longer than the model's "
            f"{max_context_length(model)} positions",
            where=where,
            fix=f"lower train.context to {max_context_length(model)}",
        )
    return model


def _write_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    output: Path,
    writes: atomic.Writes,
) -> None:
    """Write a plain Hugging Face folder in bfloat16; a README of the old folder stays."""
    cast_parameters(model, torch.bfloat16)
    model.config.dtype = torch.bfloat16
    with atomic.replacing_folder(output, writes) as temporary:
        save_model(model, temporary)
        tokenizer.save_pretrained(temporary)
        add_old_keys(temporary)
        mark_written(temporary)
        if (output / README).exists():
            shutil.copy2(output / README, temporary)


def _entropy(model: PreTrainedModel, rows: torch.Tensor) -> float:
    """Mean entropy of the model's next-token distribution over held-out rows, nats."""
    texts = [DrawnText((int(row[0]),), tuple(row[1:].tolist())) for row in rows]
    return entropy(model.eval(), texts, SamplingPolicy()).mean()


def _line(progress: PretrainProgress, steps: int) -> str:
    left = progress.seconds / progress.step * (steps - progress.step)
    return (
        f"step {progress.step}/{steps}  training {progress.train_nats_per_token:.4f} "
        f"held out {progress.validation_nats_per_token:.4f} nats/token  "
        f"{progress.tokens / progress.seconds:,.0f} tokens/s  ETA {left / 60:.0f} min"
    )

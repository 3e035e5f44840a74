"""The verb `export`: write the best checkpoint as a plain folder, and compare it after a reload."""

from __future__ import annotations

from pathlib import Path

from distillspec.export.card import CardFacts, draft_card, recommended_gamma
from distillspec.export.evidence import evidence
from distillspec.export.folder import export_draft, update_draft
from distillspec.export.push import push
from distillspec.measure.summary.records import DISTILLED, Summary
from distillspec.recipe.builtin import located, published
from distillspec.recipe.data import ChatTopicsSource, HubSource
from distillspec.recipe.published import PublishedFolder, PublishedModel
from distillspec.recipe.schema import Recipe
from distillspec.recipe.start import PrunedDraftConfig
from distillspec.recipe.words import plan_in_words
from distillspec.recipe.written_files import LICENCE, NOTICE
from distillspec.runtime import atomic
from distillspec.runtime.plain_files import BoundedText, read_text
from distillspec.workflows.exported import note_export, why_not_exported
from distillspec.workflows.run import Run, started
from distillspec.workflows.run_folder import RunFolder


def export(folder: Path, repository: str | None) -> int:
    """Write draft/ of a run again with its measured numbers.

    Args:
        folder: Of the run.
        repository: The Hub repository to upload to; None uploads nothing.
    """
    with started(RunFolder(folder).recipe(), folder) as run:
        export_run(run, repository)
        if repository is not None:
            push_draft(run, repository)
    return 0


def export_run(run: Run, repository: str | None = None) -> None:
    """Write draft/ from the best checkpoint, load it again, and compare the two."""
    pair, vocabulary = run.pair, run.pair.vocabulary
    draft = run.trained_draft(run.folder.path)
    summary = evidence(run.folder.evaluations, run.say)
    gamma = _gamma(run, summary)
    # A served target has no model in this process.
    target = None if pair.frozen is None else pair.frozen.model
    export_draft(
        draft,
        vocabulary.exported_tokenizer(pair.tokenizer),
        folder=run.folder.draft,
        target_vocabulary=vocabulary.exported_size(draft, target),
        stop_ids=vocabulary.exported_eos_ids(pair.eos_token_ids),
        num_assistant_tokens=gamma,
        card=draft_card(_card_facts(run, gamma, repository), summary),
    )
    _write_licence(run)
    # The proof comes first: only a draft that passes it is noted as exported.
    proof = run.target.export_proof(pair, draft, run.prompts, run.folder.draft)
    note_export(run.folder)
    run.say(f"exported to {run.folder.draft}; reloaded, {proof}")


def push_draft(run: Run, repository: str) -> None:
    """Upload draft/ to the Hub."""
    url = push(run.folder.draft, repository, run.recipe.export.private)
    run.say(f"uploaded to {url}")


def update_exported(run: Run) -> None:
    """Write the measured gamma and card into draft/, if draft/ is the measured draft."""
    doubt = why_not_exported(run.folder)
    if doubt is not None:
        run.say(
            f"{run.folder.draft} keeps its card and its gamma: {doubt}, so these numbers may "
            "belong to another draft\n"
            f"  fix:   distillspec export {run.folder.path}"
        )
        return
    summary = evidence(run.folder.evaluations, run.say)
    gamma = _gamma(run, summary)
    card = draft_card(_card_facts(run, gamma), summary)
    update_draft(run.folder.draft, num_assistant_tokens=gamma, card=card)
    note_export(run.folder)  # a newer version may write more keys
    best = summary.servable(DISTILLED, None) if summary else None
    basis = "no method that engines run was measured"
    if summary is not None and best is not None:
        basis = (
            f"over all temperatures of suite {summary.suite}, the fastest method that engines run "
            f"is {best.method}, gamma {best.gamma}, with {best.speedup.value:.2f}x"
        )
    run.say(f"draft/ recommends blocks of {gamma} tokens; {basis}")


def _write_licence(run: Run) -> None:
    """A draft made of a published model gets its licence, and a NOTICE with what was changed."""
    recipe = run.recipe
    if (origin := _origin(recipe)) is None:
        return
    # The NOTICE of the published draft already has what was changed to make it.
    notice = read_text(BoundedText(origin.path / NOTICE, "the notice of the published model", "-"))
    given = recipe.pair.draft
    made = "trained its draft further" if isinstance(given, str) else "made a draft of this model"
    start = "" if isinstance(given, str) else f"{given.in_words()}; "
    notice += f"- distillspec has {made}: {start}{plan_in_words(recipe)}.\n"
    if isinstance(recipe.data.source, ChatTopicsSource):
        notice += "- The questions of the training come with distillspec, under Apache-2.0.\n"
    atomic.write_text(run.folder.draft / NOTICE, notice)
    licence = read_text(
        BoundedText(origin.path / LICENCE, "the licence of the published model", "-")
    )
    atomic.write_text(run.folder.draft / LICENCE, licence)


def origin_of_weights(recipe: Recipe) -> PublishedModel | None:
    """The published model that the draft's initial weights come from."""
    origin = _origin(recipe)
    return None if origin is None else origin.model


def _origin(recipe: Recipe) -> PublishedFolder | None:
    start = recipe.pair.draft
    origin = recipe.pair.target if isinstance(start, PrunedDraftConfig) else start
    return published(origin) if isinstance(origin, str) else None


def _gamma(run: Run, summary: Summary | None) -> int:
    """num_assistant_tokens: of the recipe, else the best measured, else of the probe."""
    measured = recommended_gamma(summary) if summary else None
    configured = run.recipe.export.num_assistant_tokens
    return configured or measured or run.recipe.distill.probe.gamma


def _card_facts(run: Run, gamma: int, repository: str | None = None) -> CardFacts:
    recipe, source = run.recipe, run.recipe.data.source
    target = recipe.pair.target_name  # on the Hub without a path of this machine
    model = origin_of_weights(recipe)
    only_text = "" if recipe.pair.endpoint is None else "; the target gave text only"
    return CardFacts(
        name=f"{recipe.name} draft",
        draft=repository or recipe.export.push or str(run.folder.draft),
        base_model=_base_model(recipe),
        licence=None if model is None else model.licence_id,
        start=None if isinstance(recipe.pair.draft, str) else recipe.pair.draft.in_words(),
        target=target if repository or recipe.export.push else located(target),
        num_assistant_tokens=gamma,
        training=plan_in_words(recipe) + only_text + _questions(recipe),
        data=source.dataset if isinstance(source, HubSource) else None,
        caution=run.pair.vocabulary.caution(),
        has_encoder=run.pair.start_token is not None,
        is_chat=run.prompts.template_hash is not None,
    )


def _questions(recipe: Recipe) -> str:
    """The prompt set that comes with distillspec, with its licence."""
    is_own = isinstance(recipe.data.source, ChatTopicsSource)
    return "; the questions are chat-topics of distillspec, Apache-2.0" if is_own else ""


def _base_model(recipe: Recipe) -> str | None:
    """The model that the draft's initial weights come from; None if they are random."""
    start, model = recipe.pair.draft, origin_of_weights(recipe)
    if model is not None:
        return model.hub_id
    if isinstance(start, str):
        return start
    return recipe.pair.target_weights if isinstance(start, PrunedDraftConfig) else None

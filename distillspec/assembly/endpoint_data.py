"""A target that is an endpoint: its answers take the place of a model."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import NamedTuple

from rich.status import Status

from distillspec.assembly import training as build
from distillspec.assembly.pair import ModelPair
from distillspec.corpus.served import asking
from distillspec.corpus.served.asking import RequestProgress, ask_missing
from distillspec.corpus.served.endpoint import ServedResponse, maker
from distillspec.corpus.served.question import questions
from distillspec.corpus.served.received import Received, ReceivedAnswers, TokenCounts, tokenised
from distillspec.corpus.sources.prompts import Prompt, PromptSets
from distillspec.corpus.sources.tokenizing import Encoder, Tokens
from distillspec.corpus.stores.store_folder import StoreFolder
from distillspec.errors import DistillSpecError
from distillspec.models.sampling.generate import DrawnText
from distillspec.recipe.schema import Recipe
from distillspec.runtime.processes import writing_store
from distillspec.runtime.terminal import Terminal
from distillspec.runtime.world import World

log = logging.getLogger(__name__)

UNMEASURED = (
    "alpha, tau and speed-up are not known: they need the target's weights, and an endpoint gives "
    "text alone"
)

_SECONDS_BETWEEN_LINES = 10.0
_TRIED = 4  # prompts that `check` asks
_ALIKE = 0.9  # share of answers with equal token counts below which tokenizers are doubted


class TargetText(NamedTuple):
    """training: the prompts that have an answer. responses: theirs, by key, None where none was
    wanted. held_out: answered prompts that are not trained on. notes: for the user. folder: of the
    store.
    """

    training: list[Prompt]
    responses: dict[str, Tokens] | None
    held_out: list[DrawnText]
    notes: list[str]
    folder: Path


def target_text(
    pair: ModelPair,
    sets: PromptSets,
    world: World,
    console: Terminal,
    *,
    wanted: bool,
) -> TargetText:
    """The target's stored answers, asking for those that are missing, every rank its part.

    wanted: answers to the training prompts; those to the probe's held-out prompts always are.
    Errors: as of asking; and a store that was made otherwise.
    """
    recipe, endpoint = pair.recipe, pair.recipe.pair.endpoint
    assert endpoint is not None
    drawn = _drawn(recipe)
    place = StoreFolder(Path(recipe.data.store), endpoint.model, former=recipe.name)
    store = ReceivedAnswers(place, maker(endpoint, drawn))
    folder = store.folder
    held_out = build.probe_prompts(recipe, sets.held_out)
    prompts = [*held_out, *(sets.training if wanted else [])]
    asked = questions(prompts, endpoint.api, pair.tokenizer)
    with writing_store(folder, world, console), console.status("") as status:
        ask_missing(
            store,
            asked,
            endpoint,
            drawn,
            rank=world.rank,
            world=world.size,
            progress=_Told(console, status),
        )
    found = store.received(asked, Encoder(pair.tokenizer, stops=pair.stops), drawn.max_tokens)
    pair.check_tokens(found.responses.items())
    texts = [DrawnText(p.tokens, found.responses[p.key]) for p in held_out if _has(found, p)]
    training = [p for p in sets.training if not wanted or _has(found, p)]
    if not texts or not training:
        raise DistillSpecError(
            f"no {'held-out' if training else 'training'} prompt has got a usable answer",
            where=str(folder),
            fix="lower pair.endpoint.max_unanswered, and delete this folder to ask again",
        )
    return TargetText(
        training, found.responses if wanted else None, texts, _notes(found, folder), folder
    )


class _Told:
    """Progress on a terminal, or a line now and then where there is none."""

    def __init__(self, console: Terminal, status: Status) -> None:
        self._status, self._lines = status, not console.is_terminal
        self._next = 0.0  # on the clock of time.monotonic

    def __call__(self, progress: RequestProgress) -> None:
        self._status.update(progress.words())
        if self._lines and progress.settled < progress.total and time.monotonic() >= self._next:
            self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
            log.info(progress.words())


class Tried(NamedTuple):
    """What some questions, each asked twice, have told of an endpoint.

    best_minutes: until all wanted answers are there, if the server serves its requests together as
    fast as one alone.
    """

    makers: list[str]
    seconds_per_answer: float
    tokens_per_answer: float
    wanted: int
    best_minutes: float
    notes: list[str]
    warnings: list[str]


def try_out(pair: ModelPair, sets: PromptSets) -> Tried:
    """Ask a few held-out prompts twice and store nothing. Errors: as of asking."""
    recipe, endpoint = pair.recipe, pair.recipe.pair.endpoint
    assert endpoint is not None
    asked = questions(sets.held_out[:_TRIED], endpoint.api, pair.tokenizer)
    trials = asking.try_out(asked, endpoint, _drawn(recipe))
    given = [answer for trial in trials for answer in trial.answers]
    twice = [question for question in asked for _ in range(2)]
    found = tokenised(
        twice, given, Encoder(pair.tokenizer, stops=pair.stops), recipe.data.max_response_tokens
    )
    seconds = sum(trial.seconds for trial in trials) / len(given)
    wanted = len(build.probe_prompts(recipe, sets.held_out)) + (
        len(sets.training) if recipe.distill.source.target else 0
    )
    warnings = []
    if all(one == other for one, other in (trial.answers for trial in trials)):
        warnings.append(
            f"both answers to each of {len(trials)} prompts are the same: the server seems to take "
            "the likeliest token whatever the temperature is (its do_sample? a cache?)"
        )
    return Tried(
        makers=sorted({answer.maker for answer in given}),
        seconds_per_answer=seconds,
        tokens_per_answer=sum(map(len, found.tokens)) / len(given),
        wanted=wanted,
        best_minutes=wanted * seconds / endpoint.concurrency / 60.0,
        notes=_compared(found.counts, found.prompts),
        warnings=warnings,
    )


def _drawn(recipe: Recipe) -> ServedResponse:
    return ServedResponse(recipe.distill.temperature, recipe.data.max_response_tokens, recipe.seed)


def _has(found: Received, prompt: Prompt) -> bool:
    return prompt.key in found.responses


def _notes(found: Received, folder: Path) -> list[str]:
    notes = []
    if found.unanswered:
        notes.append(
            f"{len(found.unanswered)} prompts have got no usable answer and are left out; to ask "
            "them again for a new run (a resumed one refuses other data), delete their lines with "
            f"`unanswered` under {folder}"
        )
    if len(found.makers) > 1:
        notes.append(f"the answers come from more than one model: {', '.join(found.makers)}")
    return notes + _compared(found.counts, found.prompts)


def _compared(answers: TokenCounts, prompts: TokenCounts) -> list[str]:
    """Whether the draft reads and cuts texts as the server does, as far as counts can tell."""
    notes = []
    if answers.texts:
        text = (
            f"the server counts {answers.server:,} tokens in its answers, the draft's tokenizer "
            f"{answers.ours:,}; {answers.equal / answers.texts:.0%} of the answers agree to within "
            "one"
        )
        if answers.equal < _ALIKE * answers.texts:
            text += (
                ". Is the draft's tokenizer the target's? Speculative decoding needs equal ones "
                "(the server alone counts hidden reasoning)"
            )
        notes.append(text)
    if prompts.texts:
        text = (
            f"the server counts {prompts.server:,} tokens in the prompts, the draft's tokenizer "
            f"{prompts.ours:,}; {prompts.equal / prompts.texts:.0%} of the prompts agree"
        )
        if prompts.equal < _ALIKE * prompts.texts:
            text += (
                ". Is the draft's chat template the server's, and told the same "
                "(pair.endpoint.body: {chat_template_kwargs: ...}), and does each put the same "
                "before a text? What is learned after another prompt than the target's is not what "
                "the target says there"
            )
        notes.append(text)
    return notes

"""A target behind an endpoint, which gives stored answers in place of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distillspec.assembly.pair import ModelPair
from distillspec.assembly.text import probe_prompts
from distillspec.assembly.training import TrainingText
from distillspec.corpus.served import request_pool
from distillspec.corpus.served.answers import Received, ReceivedAnswers, TokenCounts, tokenised
from distillspec.corpus.served.endpoint import ServedResponse, request_settings
from distillspec.corpus.served.request import api_requests
from distillspec.corpus.served.request_pool import ask_missing
from distillspec.corpus.sources.prompts import Prompt, PromptSets
from distillspec.corpus.sources.tokenizing import Encoder, Tokens
from distillspec.corpus.stores.store_folder import StoreFolder
from distillspec.errors import DistillSpecError
from distillspec.export.folder import verify_reload
from distillspec.measure.exact.corpus_alpha import surprise
from distillspec.models.sampling.generate import DrawnText
from distillspec.recipe.schema import Recipe
from distillspec.runtime.processes import writing_store
from distillspec.runtime.terminal import Terminal
from distillspec.runtime.world import World
from distillspec.text.command import command
from distillspec.training.held_out_loss import HeldOutLoss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

UNMEASURED = (
    "alpha, tau and speed-up are not known: they need the target's weights, and an endpoint gives "
    "text only"
)

_TRIED = 4  # prompts that `check` asks
_ALIKE = 0.9  # share of answers with equal token counts below which tokenizers are doubted


@dataclass(frozen=True)
class ServedTarget:
    """A target behind an OpenAI-compatible API, which answers with text only.

    The answers are stored first. Training then reads stored text, as with any target.
    """

    console: Terminal

    @property
    def evaluates(self) -> bool:
        return False

    def control_refusal(self) -> str | None:
        return "no control: it would repeat the same training, by plain NLL"

    def try_out(self, pair: ModelPair, sets: PromptSets) -> EndpointTrial:
        return try_out(pair, sets)

    def training_text(
        self,
        pair: ModelPair,
        sets: PromptSets,
        world: World,
        settle: Callable[[dict[str, Tokens] | None], ModelPair],
    ) -> TrainingText:
        wanted = "target" in pair.recipe.distill.stored
        answers = target_text(pair, sets, world, self.console, wanted=wanted)
        settle(answers.responses)
        probe = HeldOutLoss(answers.held_out, vocab_size=pair.vocab_size)
        return TrainingText(answers.training, answers.responses, probe, None, answers.notes)

    def fill_stores(self, pair: ModelPair, sets: PromptSets, world: World) -> list[str]:
        answers = target_text(pair, sets, world, self.console, wanted=True)
        return [
            f"{len(answers.responses or {})} responses stored under {answers.folder}",
            *answers.notes,
            f"{len(answers.held_out)} of them to held-out prompts, for the probe",
        ]

    def export_proof(
        self, pair: ModelPair, draft: PreTrainedModel, sets: PromptSets, folder: Path
    ) -> str:
        """Compare the loss on the target's stored answers to held-out prompts."""
        single_process = World(1, 1, 0)  # the other processes have ended
        texts = target_text(pair, sets, single_process, self.console, wanted=False).held_out
        nats = verify_reload(folder, draft, texts, vocab_size=pair.vocab_size)
        trained = surprise(draft, texts, vocab_size=pair.vocab_size).mean()
        return f"its held-out loss is {nats:.4f} nats (before rounding to bfloat16 {trained:.4f})"

    def closing_lines(self, folder: Path, draft: Path) -> list[str]:
        return [
            UNMEASURED,
            "next, on a machine with the weights: "
            + command("tune", "TARGET", draft, "--prompts", "FILE.jsonl"),
        ]


class TargetText(NamedTuple):
    """The target's stored answers.

    Attributes:
        training: Training prompts that have an answer.
        responses: Their answers by prompt key; None if the recipe trains on other text.
        held_out: Held-out prompts of the probe, with their answers.
        notes: Lines for the user.
        folder: Of the store.
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
    """Read the target's stored answers; each rank asks for its part of what is missing.

    Args:
        pair: Names the endpoint and the store.
        sets: Training and held-out prompts.
        world: The processes of this start.
        console: Shows progress.
        wanted: Whether answers to the training prompts are needed. Answers to the held-out prompts
            of the probe always are.

    Raises:
        DistillSpecError: The endpoint fails, too few prompts have an answer, or the store was
            written with other settings.
    """
    # 1. The store and the requests. Held-out prompts come first.
    recipe, endpoint = pair.recipe, pair.recipe.pair.endpoint
    assert endpoint is not None
    drawn = _drawn(recipe)
    store_folder = StoreFolder(Path(recipe.data.store), endpoint.model, former=recipe.name)
    store = ReceivedAnswers(store_folder, request_settings(endpoint, drawn))
    folder = store.folder
    held_out = probe_prompts(recipe, sets.held_out)
    prompts = [*held_out, *(sets.training if wanted else [])]
    asked = api_requests(prompts, endpoint.api, pair.tokenizer)
    # 2. Ask for what is missing.
    with writing_store(folder, world, console), console.status("") as status:
        ask_missing(
            store,
            asked,
            endpoint,
            drawn,
            rank=world.rank,
            world=world.size,
            progress=lambda asked: status.update(
                "answers of the endpoint",
                done=asked.settled,
                total=asked.total,
                note=asked.failures(),
            ),
        )
    # 3. Answers as tokens; prompts without a usable answer are left out.
    received = store.received(asked, Encoder(pair.tokenizer, stops=pair.stops), drawn.max_tokens)
    pair.check_tokens(received.responses.items())
    texts = [DrawnText(p.tokens, received.responses[p.key]) for p in held_out if _has(received, p)]
    training = [p for p in sets.training if not wanted or _has(received, p)]
    if not texts or not training:
        raise DistillSpecError(
            f"no {'held-out' if training else 'training'} prompt has a usable answer",
            where=str(folder),
            fix="lower pair.endpoint.max_unanswered, and delete this folder to ask again",
        )
    return TargetText(
        training, received.responses if wanted else None, texts, _notes(received, folder), folder
    )


class EndpointTrial(NamedTuple):
    """An endpoint as a few questions, each asked twice, have shown it.

    Attributes:
        makers: The models that the server names.
        seconds_per_answer: Of requests that were sent one after the other.
        tokens_per_answer: Mean length.
        wanted: Answers that training needs.
        best_minutes: Until all wanted answers are stored, if concurrent requests take no longer
            than single ones.
        notes: Lines about token counts.
        warnings: Lines about answers that make no training text.
    """

    makers: list[str]
    seconds_per_answer: float
    tokens_per_answer: float
    wanted: int
    best_minutes: float
    notes: list[str]
    warnings: list[str]


def try_out(pair: ModelPair, sets: PromptSets) -> EndpointTrial:
    """Ask a few held-out prompts twice and store nothing."""
    recipe, endpoint = pair.recipe, pair.recipe.pair.endpoint
    assert endpoint is not None
    asked = api_requests(sets.held_out[:_TRIED], endpoint.api, pair.tokenizer)
    trials = request_pool.ask_twice(asked, endpoint, _drawn(recipe))
    answers = [answer for trial in trials for answer in trial.answers]
    # Each request once per answer, in the order of the answers.
    twice = [question for question in asked for _ in range(2)]
    tokens = tokenised(
        twice, answers, Encoder(pair.tokenizer, stops=pair.stops), recipe.data.max_response_tokens
    )
    seconds = sum(trial.seconds for trial in trials) / len(answers)
    wanted = len(probe_prompts(recipe, sets.held_out)) + (
        len(sets.training) if "target" in recipe.distill.origins else 0
    )
    warnings = []
    # At temperatures near 1, equal answers to every prompt are unlikely.
    if all(first == second for first, second in (trial.answers for trial in trials)):
        warnings.append(
            f"both answers to each of {len(trials)} prompts are the same: the server seems to take "
            "the most probable token at any temperature (check do_sample and its cache)"
        )
    return EndpointTrial(
        makers=sorted({answer.maker for answer in answers}),
        seconds_per_answer=seconds,
        tokens_per_answer=sum(map(len, tokens.tokens)) / len(answers),
        wanted=wanted,
        best_minutes=wanted * seconds / endpoint.concurrency / 60.0,
        notes=_compared(tokens.counts, tokens.prompts),
        warnings=warnings,
    )


def _drawn(recipe: Recipe) -> ServedResponse:
    return ServedResponse(recipe.distill.temperature, recipe.data.max_response_tokens, recipe.seed)


def _has(received: Received, prompt: Prompt) -> bool:
    return prompt.key in received.responses


def _notes(received: Received, folder: Path) -> list[str]:
    notes = []
    if received.unanswered:
        notes.append(
            f"{len(received.unanswered)} prompts have no usable answer and are left out; to ask "
            "them again for a new run (a resumed run refuses other data), delete their lines with "
            f"`unanswered` under {folder}"
        )
    if len(received.makers) > 1:
        notes.append(f"the answers come from more than one model: {', '.join(received.makers)}")
    return notes + _compared(received.counts, received.prompts)


def _compared(answers: TokenCounts, prompts: TokenCounts) -> list[str]:
    """Compare token counts: does the draft tokenize texts as the server does?"""
    notes = []
    if answers.texts:
        text = (
            f"the server counts {answers.server:,} tokens in its answers, the draft's tokenizer "
            f"{answers.ours:,}; {answers.equal / answers.texts:.0%} of the answers agree to within "
            "a token"
        )
        if answers.equal < _ALIKE * answers.texts:
            text += (
                ". Is the draft's tokenizer the target's? Speculative decoding needs equal "
                "tokenizers (only the server counts hidden reasoning)"
            )
        notes.append(text)
    if prompts.texts:
        text = (
            f"the server counts {prompts.server:,} tokens in the prompts, the draft's tokenizer "
            f"{prompts.ours:,}; {prompts.equal / prompts.texts:.0%} of the prompts agree"
        )
        if prompts.equal < _ALIKE * prompts.texts:
            text += (
                ". Have the draft and the server the same chat template, with the same arguments "
                "(pair.endpoint.body: {chat_template_kwargs: ...}), and the same tokens before a "
                "text? A draft that learns after another prompt does not learn the target's "
                "answers"
            )
        notes.append(text)
    return notes

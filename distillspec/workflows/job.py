"""One run at work: the run folder that a process works in, with what its stages share.

All processes train; rank 0 alone does the rest.
"""

from __future__ import annotations

import gc
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed

from distillspec.assembly import training as build
from distillspec.assembly.endpoint_data import UNMEASURED, target_text
from distillspec.assembly.identity import (
    check_identity,
    pair_identity,
    responses_identity,
    text_identity,
)
from distillspec.assembly.pair import ModelPair, device_of, dtype_of, load_pair, prepare_process
from distillspec.assembly.target_data import cached_target, target_responses
from distillspec.corpus.batches.preview import show
from distillspec.corpus.sources.prompts import Prompt, PromptSets
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.errors import DistillSpecError
from distillspec.export.card import CardFacts, draft_card, recommended_gamma
from distillspec.export.evidence import evidence
from distillspec.export.folder import (
    export_draft,
    update_draft,
    verify_export,
    verify_reload,
)
from distillspec.export.push import push
from distillspec.measure.evaluation import evaluate as measure_cells
from distillspec.measure.exact.corpus_alpha import acceptance, surprise
from distillspec.measure.summary.records import DISTILLED, Summary
from distillspec.models.loading.precision import cast_parameters, describe
from distillspec.models.surgery.adapters import merged
from distillspec.models.vocabulary.trimmed_head import settle_head, whole_head
from distillspec.recipe.loading import load_suite
from distillspec.recipe.schema import Recipe
from distillspec.recipe.start import PrunedDraftConfig
from distillspec.recipe.suite import Suite
from distillspec.recipe.written_files import HOT_TOKENS
from distillspec.report.page import write_report
from distillspec.report.terminal import summary_table
from distillspec.runtime import atomic, provenance
from distillspec.runtime.lock import run_lock
from distillspec.runtime.plain_files import BoundedText, read_json
from distillspec.runtime.processes import join, leave, told_by_rank_0
from distillspec.runtime.terminal import Terminal
from distillspec.runtime.world import World
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.training.cached_target import CachedTopKTarget
from distillspec.training.fit import FitOutcome, fit
from distillspec.training.held_out_loss import HeldOutLoss
from distillspec.training.milestones import ProbeMeasure
from distillspec.training.resume import BEST, LAST, load_best
from distillspec.workflows.exported import note_export, why_not_exported
from distillspec.workflows.run_folder import RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NEXT_SUITES = (Path("eval/suites/grid.yaml"), Path("eval/suites/methods.yaml"))
_PAGE = 160  # columns of a log or a pipe, which have no width of their own
console = Terminal(width=None if sys.stdout.isatty() else _PAGE)


class _Text(NamedTuple):
    """responses: the target's, by prompt, where there are any. cached: its kept distributions."""

    training: list[Prompt]
    responses: dict[str, Tokens] | None
    probe: ProbeMeasure
    cached: CachedTopKTarget | None


@dataclass
class Run:
    """A run folder that this process works in, with what its stages share."""

    recipe: Recipe
    folder: RunFolder
    world: World
    log: provenance.RunLog | None
    pair: ModelPair
    prompts: PromptSets
    tokens: int = 0

    # --- training ---

    def train(self) -> None:
        """The distilled draft, then its control; each is resumed where it stands."""
        recipe, pair = self.recipe, self.pair
        rows = build.preview(pair, self.prompts.training)
        if rows is not None and not self.world.rank:
            show(rows, pair.tokenizer, console)
        asked, there = recipe.distill.probe.prompts, len(self.prompts.held_out)
        if there < asked and not self.world.rank:
            self._say(
                f"{there} held-out prompts for a probe of {asked}: the fewer, the more chance is "
                "in the choice of the best step (data.held_out, data.held_out_percent)"
            )
        build.bucket_steps(recipe.distill, len(self.prompts.training))
        batch = recipe.distill.batch_size
        if batch > len(self.prompts.training) and not self.world.rank:
            self._say(
                f"a step is of {batch:,} sequences, and there are {len(self.prompts.training):,} "
                "training prompts: each is taken several times (distill.batch_size)"
            )
        text = self._text()
        self._tell_bridge()
        if text.cached is not None and self.world.rank:
            pair.target.release()  # rank 0 probes, exports and evaluates with its own
        distilled = self._fit(recipe, self.folder.path, "distilled", text)
        outcomes = {"distilled": distilled.record()}
        control = build.control_recipe(recipe, distilled.seconds / 60.0)
        if recipe.evaluate.control and self._has_text_for(control):
            trained = self._fit(control, self.folder.control, "control", text)
            outcomes["control"] = trained.record()
        if not self.world.rank:
            atomic.write_json(self.folder.training_file, outcomes)
        if pair.is_split:
            del text  # with the probe, which asks it
            pair.target.leave_processes()
        leave(self.world)
        if self.world.size > 1 and not self.world.rank:
            # The other processes are gone: what is measured now has the whole machine.
            torch.set_num_threads(recipe.hardware.threads or len(os.sched_getaffinity(0)))

    def _text(self) -> _Text:
        """What the drafts are trained on, and how they are measured meanwhile."""
        wanted = "target" in self.recipe.distill.source.stored
        training = self.prompts.training
        if self.pair.frozen is not None:
            responses = None
            if wanted:
                responses = target_responses(self.pair, training, self.world).by_key
            self._check_responses(responses)
            self._choose_head(responses)
            cached = cached_target(self.pair, training, responses, self.world)
            read = build.text_for_draft(self.pair, self.prompts, responses)
            self._say_all(read.notes)
            return _Text(read.training, responses, build.probe(self.pair, read.held_out), cached)
        found = target_text(self.pair, self.prompts, self.world, console, wanted=wanted)
        self._check_responses(found.responses)
        self._say_all(found.notes)
        loss = HeldOutLoss(found.held_out, vocab_size=self.pair.vocab_size)
        return _Text(found.training, found.responses, loss, None)

    def _check_responses(self, responses: dict[str, Tokens] | None) -> None:
        """A resumed run trains on the responses that it was started with."""
        if responses is not None and not self.world.rank:
            found = responses_identity(responses, f"data.store: {self.recipe.data.store}")
            check_identity(self.folder.identity_file, found, has_trained=False)

    def _fit(self, recipe: Recipe, folder: Path, label: str, text: _Text) -> FitOutcome:
        self._say(f"training the {label} draft: {plan_in_words(recipe)}")
        cached = text.cached if recipe.distill.cached_signal is not None else None
        outcome = fit(
            recipe,
            draft=self.pair.trainable_draft(),
            target=self.pair.target if recipe.distill.needs_target and cached is None else None,
            cached=cached,
            reference=build.reference(self.pair, recipe),
            tokenizer=self.pair.tokenizer,
            data_module=build.rows(recipe, text.training, text.responses),
            probe=text.probe,
            folder=folder,
            resume=True,
            label=label,
            eos_token_ids=self.pair.eos_token_ids,
            vocab_size=self.pair.vocab_size,
            on_checkpoint=lambda tokens: self._record(self.tokens + tokens),
        )
        self.tokens += outcome.response_tokens - outcome.tokens_before
        self._record()
        self._say(
            f"{label}: {outcome.steps} steps, {outcome.response_tokens:,} tokens in the loss, "
            f"{outcome.seconds:.0f} s; {outcome.best()}"
        )
        gc.collect()
        return outcome

    def _choose_head(self, responses: dict[str, Tokens] | None) -> None:
        """Count what a trimmed head keeps, once a run, and tell what it cannot reach."""
        plan, path = self.recipe.pair.draft_head, self.folder.head_file
        if plan is None:
            return
        if self.pair.kept is None:
            found = build.kept_tokens(self.pair, self.prompts.training, responses, plan.keep)
            self.pair = replace(self.pair, kept=found.tokens)
            if not self.world.rank:
                bound = build.reach(self.pair, self.prompts.held_out)
                atomic.write_json(path, {**found._asdict(), "mass": bound})
        if not self.world.rank:
            head = _read_head(path, self.pair.vocab_size)
            self._say(
                f"the draft's head keeps {len(head.tokens):,} of {self.pair.vocab_size:,} "
                f"tokens: {head.share:.2%} of the text they were counted in; of the target's "
                f"mass on held-out text {head.mass:.2%}, which alpha cannot exceed"
            )

    def _tell_bridge(self) -> None:
        bridge = self.pair.bridge
        if bridge is None or self.world.rank:
            return
        reached = build.reach(self.pair, self.prompts.held_out)
        self._say(
            f"the draft has a tokenizer of its own: {len(bridge.target_ids):,} of the target's "
            f"{self.pair.vocab_size:,} tokens are in both; of its mass on held-out text "
            f"{reached:.2%}, which alpha cannot exceed; {1.0 - reached:.2%} is lost"
        )

    def _has_text_for(self, control: Recipe) -> bool:
        if self.pair.frozen is None:
            self._say("no control: it would be the same training once more, by plain NLL")
            return False
        if not control.distill.source.fixed:
            return True
        if all(p.response is not None for p in self.prompts.training):
            return True
        self._say("no control: the data has no responses that it could be trained on")
        return False

    # --- export ---

    def export(self, repository: str | None = None) -> None:
        """draft/: the best checkpoint as a plain folder, reloaded and compared."""
        pair = self.pair
        draft = self._trained(self.folder.path)
        summary = evidence(self.folder.evaluations, self._say)
        gamma = self._gamma(summary)
        export_draft(
            draft,
            pair.draft_tokenizer or pair.tokenizer,
            folder=self.folder.draft,
            target_vocabulary=pair.exported_vocabulary(draft),
            stop_ids=pair.exported_stop_ids,
            num_assistant_tokens=gamma,
            card=draft_card(self._card_facts(gamma, repository), summary),
        )
        without = (
            pair.frozen is None or pair.is_split
        )  # its other parts have left with their owners
        proof = self._proof_by_loss(draft) if without else self._proof_by_alpha(draft)
        note_export(self.folder)
        self._say(f"exported to {self.folder.draft}; reloaded, {proof}")

    def _proof_by_alpha(self, draft: PreTrainedModel) -> str:
        """Compares draft/ with the draft that was trained."""
        pair, policy = self.pair, SamplingPolicy(temperature=self.recipe.distill.temperature)
        texts = build.drawn_texts(pair, self.prompts.held_out)
        expected = acceptance(
            pair.target.model, draft, texts, policy, vocab_size=pair.vocab_size
        ).mean()
        alpha = verify_export(
            self.folder.draft,
            pair.target.model,
            texts,
            policy,
            expected_alpha=expected,
            vocab_size=pair.vocab_size,
            kept=pair.kept,
            bridge=pair.bridge,
        )
        proof = (
            f"its alpha on {len(texts)} other held-out texts is {alpha:.4f}, before the export "
            f"{expected:.4f}"
        )
        if pair.kept is None:
            return proof
        whole_head(draft)
        alpha = acceptance(
            pair.target.model, draft, texts, policy, vocab_size=pair.vocab_size
        ).mean()
        return (
            f"{proof}; an engine that knows nothing of {HOT_TOKENS} drafts with the whole head: "
            f"alpha {alpha:.4f} there"
        )

    def _proof_by_loss(self, draft: PreTrainedModel) -> str:
        if self.pair.frozen is None:
            alone = World(1, 1, 0)  # the other processes have left
            texts = target_text(self.pair, self.prompts, alone, console, wanted=False).held_out
        else:
            texts = build.drafted_texts(self.pair, draft, self.prompts.held_out)
        common = self.pair.vocab_size
        nats = verify_reload(self.folder.draft, draft, texts, vocab_size=common)
        trained = surprise(draft, texts, vocab_size=common).mean()
        what = "held-out loss" if self.pair.frozen is None else "loss on its own text"
        return f"its {what} is {nats:.4f} nats (before rounding to bfloat16 {trained:.4f})"

    def _trained(self, folder: Path, name: str = "distilled") -> PreTrainedModel:
        """A draft with the best weights of the training in `folder`, adapters merged."""
        if not (folder / BEST).exists():
            check_not_lost(folder, name, self.folder)
            raise self._nothing_trained(folder)
        draft = self.pair.trainable_draft()
        load_best(draft, folder / BEST)
        plain = merged(draft)
        plain.eval()
        return plain

    def _nothing_trained(self, folder: Path) -> DistillSpecError:
        return DistillSpecError(
            "no draft has been trained here yet",
            where=str(folder),
            fix=f"./launch.sh train {self.folder.path}",
        )

    def _gamma(self, summary: Summary | None) -> int:
        """num_assistant_tokens: the recipe's, else the best measured, else the probe's."""
        measured = recommended_gamma(summary) if summary else None
        configured = self.recipe.export.num_assistant_tokens
        return configured or measured or self.recipe.distill.probe.gamma

    def _card_facts(self, gamma: int, repository: str | None = None) -> CardFacts:
        recipe = self.recipe
        published = repository or recipe.export.push
        return CardFacts(
            name=f"{recipe.name} draft",
            draft=published or str(self.folder.draft),
            base_model=_base_model(recipe),
            start=None if isinstance(recipe.pair.draft, str) else recipe.pair.draft.in_words(),
            target=recipe.pair.target_name,
            num_assistant_tokens=gamma,
            training=plan_in_words(recipe)
            + ("" if recipe.pair.endpoint is None else "; of the target, text alone was seen"),
            caution=self._caution(),
            has_encoder=self.pair.start_token is not None,
        )

    def _caution(self) -> str | None:
        if self.pair.bridge is not None:
            return (
                "This draft has a tokenizer of its own. Everything here is of decoding with the "
                f"{len(self.pair.bridge.target_ids):,} tokens that it shares with the target "
                "(TLI); of the launch lines below only transformers' can work, with tokenizer= and "
                "assistant_tokenizer= given to generate, and by its own rules."
            )
        if self.pair.kept is None:
            return None
        return (
            f"Everything here is of an output head that scores the {len(self.pair.kept):,} tokens "
            f"of `{HOT_TOKENS}` alone. The folder holds the whole head: an engine that does not "
            "read that file drafts with all of it, by another law and no faster."
        )

    def push(self, repository: str) -> None:
        url = push(self.folder.draft, repository, self.recipe.export.private)
        self._say(f"uploaded to {url}")

    # --- evaluation ---

    def evaluate(self, suite_path: str, changes: Sequence[str] = ()) -> None:
        """Decode with each draft, write rows, summary, report and card, and print the table."""
        suite, pair = load_suite(suite_path, changes), self.pair
        suite = suite.scored_on(self.recipe.data.held_out_source)
        if self.recipe.pair.draft_head is not None and pair.kept is None:
            raise self._nothing_trained(self.folder.path)
        kind = dtype_of(suite.runner.dtype, pair.device)
        cast_parameters(pair.target.model, kind)
        drafts = {"undistilled": pair.draft(kind)}
        for name, folder in (("distilled", self.folder.path), ("control", self.folder.control)):
            if (folder / BEST).exists():
                drafts[name] = self._trained(folder, name)
                drafts[name].name_or_path = str(folder / BEST)  # for the summary
                cast_parameters(drafts[name], kind)
                settle_head(drafts[name])
            else:
                check_not_lost(folder, name, self.folder)
        held_out, notes = self.prompts.held_out, list[str]()
        if suite.prompts.named:
            held_out, notes = build.suite_prompts(pair, suite, list(drafts.values()))
        place = self.folder.evaluation(suite.name)
        self._say(
            f"measuring {', '.join(measured(suite, drafts))}: "
            f"{min(suite.prompts.count, len(held_out))} prompts, methods "
            f"{', '.join(method.name for method in suite.methods)}, "
            f"temperature {', '.join(f'{one:g}' for one in suite.temperatures)}"
        )
        with console.status("") as status:
            summary = measure_cells(
                suite,
                target=pair.target.model,
                drafts=drafts,
                tokenizer=pair.tokenizer,
                prompts=held_out,
                folder=place,
                device=pair.device,
                vocab_size=pair.vocab_size,
                ends=pair.eos_token_ids,
                notes=notes,
                progress=lambda done, total, doing: status.update(f"{doing}: {done} of {total}"),
            )
        page = write_report(place, self.folder.metrics)
        show_summary(summary, page)
        if self.folder.draft.exists():
            self._update_exported()

    def _update_exported(self) -> None:
        """The measured gamma and card into draft/, where it is the draft that was measured."""
        doubt = why_not_exported(self.folder)
        if doubt is not None:
            self._say(
                f"{self.folder.draft} keeps its card and its gamma: {doubt}, so these numbers may "
                "be of another draft\n"
                f"  fix:   write it again, with them: ./launch.sh export {self.folder.path}"
            )
            return
        proof = evidence(self.folder.evaluations, self._say)
        gamma = self._gamma(proof)
        card = draft_card(self._card_facts(gamma), proof)
        update_draft(self.folder.draft, num_assistant_tokens=gamma, card=card)
        note_export(self.folder)  # another version may write other keys
        self._say_recommended(gamma, proof)

    def _say_recommended(self, gamma: int, proof: Summary | None) -> None:
        best = proof.servable(DISTILLED, None) if proof else None
        basis = "nothing that engines run was measured"
        if proof is not None and best is not None:
            basis = (
                f"the fastest measured of what engines run: method {best.method}, gamma "
                f"{best.gamma}, {best.speedup.value:.2f}x in suite {proof.suite}"
            )
        self._say(f"draft/ recommends blocks of {gamma} tokens; {basis}")

    # --- the record ---

    def close(self) -> None:
        self._record(finished=True)
        self._say(f"run folder: {self.folder.path}")
        if self.pair.frozen is None:
            self._say(UNMEASURED)
            self._say(
                f"next, where the weights are: ./launch.sh auto TARGET {self.folder.draft} "
                "--prompts FILE.jsonl"
            )
            return
        if self.pair.is_split:
            self._say(
                "not evaluated: the target lies split over the processes, which have left. tau and "
                "speed-up are measured where it can decode: in a serving engine, or by "
                f"./launch.sh evaluate {self.folder.path} on a machine that holds it in one process"
            )
            return
        for suite in _NEXT_SUITES:
            if not self.folder.evaluation(suite.stem).exists():
                self._say(f"next:  ./launch.sh evaluate {self.folder.path} --suite {suite}")
                break

    def _record(self, tokens: int | None = None, *, finished: bool = False) -> None:
        if self.log is not None:
            self.log.record(tokens=self.tokens if tokens is None else tokens, finished=finished)

    def _say_all(self, notes: Iterable[str]) -> None:
        for note in notes:
            self._say(note)

    def _say(self, text: str) -> None:
        if not self.world.rank:
            console.print(text, highlight=False, soft_wrap=True)


def measured(suite: Suite, drafts: Iterable[str]) -> list[str]:
    """Those of the drafts that any method of the suite decodes with."""
    return [name for name in drafts if any(suite.measures(name, one) for one in suite.methods)]


@contextmanager
def started(recipe: Recipe, folder: Path | None, resumed_by: str | None = None) -> Iterator[Run]:
    """Join the processes, hold the run folder, load the pair and the prompts.

    resumed_by: the command that goes on with this run, before its folder; said at an interrupt.
    """
    world = join()
    prepare_process(recipe)
    # A run folder is begun only when pair and data have turned out to be good.
    pair = load_pair(recipe)
    prompts = build.prompts(pair)
    begun = None
    if not world.rank:
        begun = RunFolder(folder) if folder is not None else RunFolder.begin(recipe)
    run_folder = told_by_rank_0(begun, world)  # who fixes its id
    if recipe.pair.draft_head is not None and run_folder.head_file.exists():
        head = _read_head(run_folder.head_file, pair.vocab_size)
        pair = replace(pair, kept=head.tokens)
    if world.rank:
        yield Run(recipe, run_folder, world, None, pair, prompts)
        return
    with run_lock(run_folder.path, holds=run_folder.recipe_file.name):
        notes = _check_identity(pair, prompts, run_folder)
        record = provenance.RunLog(run_folder.provenance_file, provenance.gather())
        console.print(f"run folder: {run_folder.path}", highlight=False)
        console.print(describe(device_of(recipe.hardware)), highlight=False)
        for note in [*notes, *prompts.notes, *build.overlap(recipe, prompts)]:
            console.print(note, highlight=False)
        console.print(
            f"{len(prompts.training):,} training prompts, {len(prompts.held_out)} held out"
        )
        try:
            yield Run(recipe, run_folder, world, record, pair, prompts)
        except KeyboardInterrupt as interrupt:
            if str(interrupt) or resumed_by is None:
                raise
            command = f"{resumed_by} {shlex.quote(str(run_folder.path))}"
            raise type(interrupt)(f"resume with: {command}") from None


def show_summary(summary: Summary, page: Path) -> None:
    console.print(summary_table(summary))
    console.print(f"report: {page}", highlight=False, soft_wrap=True)


def _base_model(recipe: Recipe) -> str | None:
    """Whose weights the draft began with."""
    if isinstance(recipe.pair.draft, str):
        return recipe.pair.draft
    return recipe.pair.target_weights if isinstance(recipe.pair.draft, PrunedDraftConfig) else None


class _Head(NamedTuple):
    """draft_head.json. share: of the text the tokens were counted in. mass: of held-out text."""

    tokens: tuple[int, ...]
    share: float
    mass: float


def _read_head(path: Path, vocab_size: int) -> _Head:
    kept = BoundedText(path, "the tokens that the draft's head keeps", "start a new run")
    head = read_json(kept, _Head)
    if not head.tokens or not all(0 <= token < vocab_size for token in head.tokens):
        raise kept.fault(f"its tokens are not all in a vocabulary of {vocab_size:,}")
    return head


def _check_identity(pair: ModelPair, prompts: PromptSets, folder: RunFolder) -> list[str]:
    """Whether models and data are those that the run in `folder` was started with; notes."""
    path, trained = folder.identity_file, (folder.path / LAST).exists()
    named = pair.recipe.data.source.model_dump()
    source = f"data.source: {named.get('path') or named.get('dataset') or named['kind']}"
    notes = check_identity(path, pair_identity(pair, path), has_trained=trained)
    check_identity(path, text_identity(prompts, source), has_trained=False)
    return notes


def check_not_lost(folder: Path, name: str, run: RunFolder) -> None:
    """DistillSpecError where a draft has been trained and its best weights are not there.

    Args:
        folder: The training's.
        name: The draft's, as training.json has it.
        run: The run that the training belongs to.
    """
    fix = f"put the file back, or go on with the training: ./launch.sh train {run.path}"
    is_done = run.training_file.exists() and name in read_json(
        BoundedText(run.training_file, "what training came to", fix), dict[str, Any]
    )
    if not is_done and not os.path.lexists(folder / LAST):
        return
    if is_done:
        fix = (
            f"put the file back; or delete {LAST} beside it and train again, from the beginning: "
            f"./launch.sh train {run.path}"
        )
    raise DistillSpecError(
        f"the weights of the best step of the {name} draft are gone"
        if is_done
        else f"there are no best weights of the {name} draft: its training was stopped before it "
        "was measured, or the file is gone",
        where=str(folder / BEST),
        fix=fix,
    )


def plan_in_words(recipe: Recipe) -> str:
    """One line: objective, source of text, temperature, length."""
    plan = recipe.distill
    shares = [f"{share:.0%} {name}" for name, share in plan.source.of.items()]
    if plan.source.per != "sequence":
        shares[-1] += f" by the {plan.source.per}"
    steps = f"{plan.max_steps} steps" if plan.max_steps < 1_000_000 else ""
    minutes = f"{plan.max_minutes:.3g} minutes" if plan.max_minutes else ""
    text = "responses and their prompts" if plan.on_prompts else "responses"
    muon = ", by Muon" if recipe.optimizer.kind == "muon" else ""
    signal = plan.cached_signal
    kept = f" against the target's {signal.k} likeliest tokens and their rest" if signal else ""
    return (
        f"{plan.loss_in_words}{kept} on {', '.join(shares)} {text}, "
        f"temperature {plan.temperature:g}, "
        f"batches of {plan.batch_size}, at most {' or '.join(filter(None, (steps, minutes)))}"
        f"{muon}"
    )

"""Costs and acceptance of a pair before training, and warnings if it cannot gain."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from distillspec.errors import DistillSpecError
from distillspec.measure.exact import corpus_alpha
from distillspec.measure.exact.prompt import MeasuredPrompt
from distillspec.measure.stats import intervals
from distillspec.measure.stats.intervals import Sums, Verdict, by_document, verdict_against
from distillspec.measure.timed.memory import Memory, TrainingLoad, memory_estimate, parameters
from distillspec.methods import cost_model
from distillspec.methods.build import block_sizes, configuration, max_slots
from distillspec.methods.measure_steps import measure_steps
from distillspec.methods.step_times import StepTimes, middle_prompt
from distillspec.models.runners.compiled import make_runner
from distillspec.models.runners.eager import vocabulary_size
from distillspec.models.sampling.generate import DrawnText, generate
from distillspec.models.vocabulary.chat_template import ChatTemplate
from distillspec.models.vocabulary.cross_tokenizer import token_map_of
from distillspec.models.vocabulary.eos_tokens import find_eos_tokens
from distillspec.models.vocabulary.trimmed_head import kept_tokens
from distillspec.recipe.methods import MethodConfig
from distillspec.recipe.suite import Suite
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.sampling import SamplingPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DRAFT = "undistilled"
_CLOSE = 1.1


@dataclass(frozen=True)
class Expectation:
    """What to expect at one temperature. summary/definitions.py defines the quantities.

    Attributes:
        draft_to_target_time: c of a block of best_gamma.
        verify_times: v by gamma.
        break_even_alpha: None if even alpha = 1 does not break even.
        highest_alpha: The target's mass on the tokens that the draft scores. It is 1 unless the
            head is trimmed or the draft has another tokenizer.
        perfect_draft_cap: The best speed-up at `highest_alpha`.
        predicted_speedup: At best_gamma, for independent tokens with acceptance rate `alpha`.
        against_break_even: Whether alpha is higher or lower. All temperatures are tested together.
    """

    temperature: float
    alpha: float
    alpha_low: float
    alpha_high: float
    entropy_nats: float
    target_step_seconds: float
    draft_to_target_time: float
    verify_times: dict[int, float]
    break_even_alpha: float | None
    highest_alpha: float
    perfect_draft_cap: float
    perfect_draft_gamma: int
    best_gamma: int
    predicted_speedup: float
    against_break_even: Verdict


@dataclass(frozen=True)
class PairCheck:
    """The result of `check`.

    Attributes:
        vocab_size: Tokens that both models share.
        chat_template: Its sha256; None without a template.
        seconds: Time that the check took.
    """

    target_parameters: int
    draft_parameters: int
    target_vocabulary: int
    draft_vocabulary: int
    vocab_size: int
    chat_template: str | None
    runner: str
    prompts: int
    expectations: tuple[Expectation, ...]
    memory: Memory
    warnings: tuple[str, ...]
    seconds: float

    def predicted_speedup(self) -> float:
        """The lowest over the temperatures, for comparison with a required minimum."""
        return min(expectation.predicted_speedup for expectation in self.expectations)

    def perfect_draft_cap(self) -> float:
        """The lowest over the temperatures: no training exceeds it at every temperature."""
        return min(expectation.perfect_draft_cap for expectation in self.expectations)


def assess(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[MeasuredPrompt],
    *,
    suite: Suite,
    load: TrainingLoad,
    device: torch.device | str,
    vocab_size: int | None = None,
    ends: frozenset[int] | None = None,
    progress: Callable[[str], None] = lambda doing: None,
) -> PairCheck:
    """Measure the pair at the suite's temperatures and gammas, with its runner.

    Args:
        target, draft: On `device`, in the dtype that they decode in.
        tokenizer: The pair's tokenizer, checked before.
        prompts: The first `suite.prompts.count` are used.
        suite: Gives temperatures, gammas, the runner and the confidence.
        load: What one training process holds, for the memory estimate.
        device: Where the models are.
        vocab_size: Tokens that both models share, from `check_pair`.
        ends: Ids of tokens that end a text; None: those of the target.
        progress: Called with what goes on.
    """
    started = time.monotonic()
    # 1. The prompts, and the tokens that both models share.
    taken = list(prompts[: suite.prompts.count])
    if not taken:
        raise DistillSpecError(
            "there are no prompts to measure acceptance on",
            where="check",
            fix="add prompts to data.source or data.held_out in the recipe",
        )
    for model in (target, draft):
        model.train(False)
    shared = vocab_size or min(vocabulary_size(target), vocabulary_size(draft))
    # 2. Isolated step times: c and v of the cost model.
    progress(f"preparing the models ({suite.runner.kind}) and timing their steps")
    steps = _steps(target, draft, taken, suite, device, shared)
    if ends is None:
        ends = find_eos_tokens(target, tokenizer).ids
    # 3. Acceptance at each temperature, on text that the target draws.
    expectations = []
    for at in suite.temperatures:
        progress(f"measuring acceptance on {len(taken)} prompts at T = {at:g}")
        expectations.append(expectation_at(target, draft, ends, taken, suite, steps[at], shared))
    # 4. Facts about vocabularies and memory, and the warnings.
    template = ChatTemplate(tokenizer)
    sizes = vocabulary_size(target), vocabulary_size(draft)
    # A draft with another tokenizer is not padded differently: it has other tokens.
    comparable = sizes if token_map_of(draft) is None else (sizes[0], sizes[0])
    return PairCheck(
        target_parameters=parameters(target),
        draft_parameters=parameters(draft),
        target_vocabulary=sizes[0],
        draft_vocabulary=sizes[1],
        vocab_size=shared,
        chat_template=template.hash() if template.exists else None,
        runner=suite.runner.kind,
        prompts=len(taken),
        expectations=tuple(expectations),
        memory=memory_estimate(target, draft, load, _capacity(taken, suite)),
        warnings=tuple(warnings_about(expectations, *comparable)),
        seconds=time.monotonic() - started,
    )


def _capacity(prompts: Sequence[MeasuredPrompt], suite: Suite) -> int:
    longest = max(len(prompt.tokens) for prompt in prompts)
    return longest + suite.max_new_tokens + max_slots(suite) + 1


def _steps(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    prompts: Sequence[MeasuredPrompt],
    suite: Suite,
    device: torch.device | str,
    vocab_size: int,
) -> dict[float, StepTimes]:
    """Isolated step times by temperature."""
    capacity, kind = _capacity(prompts, suite), suite.runner.kind
    target_runner = make_runner(
        target, kind, capacity, block_sizes(suite.gammas), vocab_size=vocab_size
    )
    texts = [prompt.tokens for prompt in prompts]
    # A draft reads two tokens in a step if its last draft was accepted: that one and the bonus.
    draft_runner = make_runner(draft, kind, capacity, (1, 2), vocab_size=vocab_size, prompts=texts)
    middle = middle_prompt(texts, [draft_runner], max_slots(suite))
    return {
        at: measure_steps(
            target_runner,
            {DRAFT: draft_runner},
            [configuration(MethodConfig(), gamma) for gamma in suite.gammas],
            torch.tensor(middle, device=device),
            policy=SamplingPolicy(at, suite.top_k, suite.nucleus),
            random_source=GeneratorSource(
                torch.Generator(device).manual_seed(derive_seed(suite.seed, "timing of check", at))
            ),
        )
        for at in suite.temperatures
    }


def expectation_at(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    ends: frozenset[int],
    prompts: Sequence[MeasuredPrompt],
    suite: Suite,
    steps: StepTimes,
    vocab_size: int,
) -> Expectation:
    """What to expect at the temperature of `steps`, on text that the target draws.

    Args:
        target, draft: In eval mode.
        ends: Ids of tokens that end a text.
        prompts: One text is drawn after each.
        suite: Gives the length of the texts, the sampling and the confidence.
        steps: Of the draft `DRAFT`.
        vocab_size: Tokens that both models share.
    """
    policy = SamplingPolicy(steps.temperature, suite.top_k, suite.nucleus)
    texts = _drawn(target, ends, prompts, suite, policy, vocab_size)
    overlap = corpus_alpha.acceptance(target, draft, texts, policy, vocab_size=vocab_size)
    sums = by_document(Sums(overlap.sums, overlap.tokens), [prompt.document for prompt in prompts])
    alpha = intervals.ratio(sums, suite.confidence).within(0.0, 1.0)
    times = steps.round_times(DRAFT)
    highest = _highest_alpha(target, draft, texts, policy, vocab_size)
    cap, best = cost_model.best_gamma(highest, times), cost_model.best_gamma(alpha.value, times)
    even = cost_model.break_even_alpha(times)
    verdict: Verdict = "not tested"
    if even is not None:
        # Corrected for the number of temperatures, which are tested together.
        verdict = verdict_against(sums, even, suite.confidence, len(suite.temperatures))
    return Expectation(
        temperature=steps.temperature,
        alpha=alpha.value,
        alpha_low=alpha.low,
        alpha_high=alpha.high,
        entropy_nats=corpus_alpha.entropy(target, texts, policy, vocab_size=vocab_size).mean(),
        target_step_seconds=steps.target_seconds,
        draft_to_target_time=steps.draft_to_target_time(DRAFT, best.gamma),
        verify_times=steps.verify_times(),
        break_even_alpha=even,
        highest_alpha=highest,
        perfect_draft_cap=cap.speedup,
        perfect_draft_gamma=cap.gamma,
        best_gamma=best.gamma,
        predicted_speedup=best.speedup,
        against_break_even=verdict,
    )


def _highest_alpha(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    texts: Sequence[DrawnText],
    policy: SamplingPolicy,
    vocab_size: int,
) -> float:
    """The target's mass on the tokens that the draft scores, in [0, 1]: no training exceeds it."""
    token_map = token_map_of(draft)
    scored = kept_tokens(draft) if token_map is None else token_map.target_ids
    if scored is None:
        return 1.0
    return corpus_alpha.mass(target, texts, policy, scored.tolist(), vocab_size=vocab_size).mean()


def _drawn(
    target: PreTrainedModel,
    ends: frozenset[int],
    prompts: Sequence[MeasuredPrompt],
    suite: Suite,
    policy: SamplingPolicy,
    vocab_size: int,
) -> list[DrawnText]:
    """Text drawn from the target after each prompt."""
    responses = generate(
        target,
        [torch.tensor(prompt.tokens) for prompt in prompts],
        max_new_tokens=suite.max_new_tokens,
        policy=policy,
        random_source=GeneratorSource(
            torch.Generator(target.device).manual_seed(
                derive_seed(suite.seed, "texts of check", policy.temperature)
            )
        ),
        eos_token_ids=ends,
        pad_token=min(ends, default=0),
        vocab_size=vocab_size,
    )
    return [
        DrawnText(tuple(prompt.tokens), tuple(response.tolist()))
        for prompt, response in zip(prompts, responses, strict=True)
    ]


# --- warnings ------------------------------------------------------------------------------------


def warnings_about(
    expectations: Sequence[Expectation], target_vocabulary: int, draft_vocabulary: int
) -> list[str]:
    """What the user should know before training this pair."""
    warnings = []
    for expectation in expectations:
        at, cap = f"at T = {expectation.temperature:g}", f"{expectation.perfect_draft_cap:.2f}x"
        if expectation.break_even_alpha is None:
            warnings.append(
                f"{at} even a perfect draft cannot win on this machine: a draft step costs "
                f"{expectation.draft_to_target_time:.2f} of a target step, the cap is "
                f"{cap}. Take a smaller draft: training cannot fix this"
            )
        elif expectation.break_even_alpha > expectation.highest_alpha:
            warnings.append(
                f"{at} even a perfect draft cannot win: the target's mass on the tokens that the "
                f"draft scores is {expectation.highest_alpha:.3f}, and break-even is at alpha "
                f"{expectation.break_even_alpha:.3f}. Raise pair.draft_head.keep, or take a draft "
                "that scores all tokens"
            )
        elif expectation.perfect_draft_cap < _CLOSE:
            warnings.append(
                f"{at} a perfect draft would give at most {cap}: there is almost nothing to gain"
            )
        elif expectation.against_break_even == "lower":
            warnings.append(
                f"{at} this draft slows decoding down: alpha is {expectation.alpha:.3f}, "
                f"break-even {expectation.break_even_alpha:.3f}. Distillation must close this gap"
            )
    if target_vocabulary != draft_vocabulary:
        warnings.append(
            f"the outputs are padded differently (target {target_vocabulary}, draft "
            f"{draft_vocabulary} tokens): some engines refuse such a pair, so the exported draft "
            "gets the target's size"
        )
    return warnings

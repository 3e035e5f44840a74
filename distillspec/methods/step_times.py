"""Isolated step times of a pair, which the cost model needs, and the prompt to time them after."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from distillspec.errors import DistillSpecError
from distillspec.speculation.round_times import BlockTime, RoundTimes
from distillspec.speculation.runner import PieceReader, Runner

Clock = Callable[[], float]
"""Seconds since some moment."""


@dataclass(frozen=True)
class StepTimes:
    """Medians in seconds, at one temperature.

    Attributes:
        temperature: Of the sampling policy.
        target_seconds: A one-token forward of the target, with the draw of its token.
        verify_seconds: For each gamma, all of a round but its draft: the target's forward over a
            full block, its verification, and the engine's own work. The block is `drafted` tokens
            and the one before them. A method that may end a block early has blocks of half its
            gamma, a quarter and so on, too.
        drafted: For each gamma, the drafted tokens of that block.
        steps: For each gamma, the forwards of the draft. 0 for a draft without a model, whose
            search is in verify_seconds.
        draft_seconds: For each draft and gamma, drafting that block, with the draws of its tokens
            and the stop rule.
        unread_seconds: For each draft, what a draft takes more where it has two tokens to read.
        samples: Rounds that the medians are over.
        spread: The largest distance between the quartiles of a kind of step, as a share of its
            median. Near 0 on a quiet machine.
    """

    temperature: float
    target_seconds: float
    verify_seconds: dict[int, float]
    drafted: dict[int, int]
    steps: dict[int, int]
    draft_seconds: dict[str, dict[int, float]]
    unread_seconds: dict[str, float]
    samples: int
    spread: float

    def draft_to_target_time(self, draft: str, gamma: int) -> float:
        """c: one draft step of a block of gamma, on average, over a one-token target step."""
        steps = self.steps[gamma]
        return self.draft_seconds[draft][gamma] / steps / self.target_seconds if steps else 0.0

    def verify_time(self, gamma: int) -> float:
        """v: a round of gamma drafted tokens, but for its draft, over a one-token target step."""
        return self.verify_seconds[gamma] / self.target_seconds

    def verify_times(self) -> dict[int, float]:
        """v for each gamma."""
        return {gamma: self.verify_time(gamma) for gamma in self.verify_seconds}

    def round_times(self, draft: str) -> RoundTimes:
        """Times of rounds with this draft, in one-token target steps."""
        blocks = {
            gamma: BlockTime(
                self.steps[gamma],
                self.drafted[gamma],
                self.draft_seconds[draft][gamma] / self.target_seconds,
                self.verify_time(gamma),
            )
            for gamma in self.verify_seconds
        }
        return RoundTimes(blocks, self.unread_seconds[draft] / self.target_seconds)


def middle_prompt(
    prompts: Iterable[Sequence[int]], drafts: Collection[Runner], slots: int
) -> Sequence[int]:
    """The prompt of middle length, of those that leave the drafts enough room.

    Args:
        prompts: The prompts to choose from.
        drafts: The draft models.
        slots: Tokens that each draft must have room for after the prompt.

    Raises:
        DistillSpecError: No prompt leaves so much room. A draft with another tokenizer may read
            none.
    """
    fitting = [prompt for prompt in prompts if has_room(prompt, drafts, slots)]
    if not fitting:
        raise DistillSpecError(
            f"every prompt is too long: the draft has no room for a block of {slots} of its tokens",
            where="step times of a draft with another tokenizer",
            fix="use shorter prompts, or a draft with a longer context",
        )
    return sorted(fitting, key=len)[len(fitting) // 2]


def has_room(prompt: Sequence[int], drafts: Iterable[Runner], slots: int) -> bool:
    """Whether drafts that read pieces have room for so many tokens after the prompt.

    These drafts are emptied. All others have room: decoding checks it for the prompt and its
    answer.
    """
    for draft in drafts:
        if isinstance(draft, PieceReader):
            draft.reset()
            if min(draft.room_after(prompt)) < slots:
                return False
    return True

"""Step times of chains, made by hand."""

from __future__ import annotations

from collections.abc import Mapping

from distillspec.methods.step_times import StepTimes


def chain_times(
    temperature: float,
    target_seconds: float,
    verify_seconds: Mapping[int, float],
    step_seconds: Mapping[str, float],
) -> StepTimes:
    """Times of chains by gamma, whose draft steps all take the same."""
    return StepTimes(
        temperature=temperature,
        target_seconds=target_seconds,
        verify_seconds=dict(verify_seconds),
        drafted={gamma: gamma for gamma in verify_seconds},
        steps={gamma: gamma for gamma in verify_seconds},
        draft_seconds={
            name: {gamma: gamma * seconds for gamma in verify_seconds}
            for name, seconds in step_seconds.items()
        },
        unread_seconds=dict.fromkeys(step_seconds, 0.0),
        samples=30,
        spread=0.1,
    )

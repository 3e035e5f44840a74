from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from distillspec.measure.target_texts import drawn_texts, text_facts
from distillspec.models.runner import CausalRunner
from distillspec.speculation.chance import GeneratorChance
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.engine import Configuration, SpeculativeDecoder
from distillspec.speculation.records import Counts
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.token import verify_token

if TYPE_CHECKING:
    from distillspec.measure.corpus_alpha import DrawnText
    from tests.measure.conftest import Setting


def drawn(setting: Setting, temperature: float, seed: int = 0) -> list[DrawnText]:
    return drawn_texts(
        setting.target,
        setting.prompts,
        SamplingPolicy(temperature),
        max_new_tokens=20,
        ends=frozenset(),
        seed=seed,
        vocabulary=None,
    )


def test_texts_follow_their_seed_and_prompts(setting: Setting) -> None:
    assert drawn(setting, 1.0) == drawn(setting, 1.0)
    assert drawn(setting, 1.0) != drawn(setting, 1.0, seed=1)
    assert [text.prompt for text in drawn(setting, 1.0)] == [p.tokens for p in setting.prompts]
    assert all(len(text.response) == 20 for text in drawn(setting, 1.0))


def test_texts_end_with_an_end_token(setting: Setting) -> None:
    first = drawn(setting, 0.0)[0].response
    (again, *_) = drawn_texts(
        setting.target,
        setting.prompts[:1],
        SamplingPolicy(0.0),
        max_new_tokens=20,
        ends=frozenset({first[3]}),
        seed=0,
        vocabulary=None,
    )
    assert again.response == first[: first.index(first[3]) + 1]


def test_greedy_expectation_is_what_decoding_counts(setting: Setting) -> None:
    """At temperature 0 nothing is random, so both must be the same numbers, text by text."""
    import torch

    policy, gamma = SamplingPolicy(0.0), 3
    facts = text_facts(setting.target, setting.drafts, drawn(setting, 0.0), policy, None)
    for name, draft in setting.drafts.items():
        decoder = SpeculativeDecoder(
            CausalRunner(setting.target),
            CausalRunner(draft),
            Configuration("standard", gamma, ChainDraft(), FixedLength(), verify_token),
            policy,
            GeneratorChance(torch.Generator().manual_seed(0)),
        )
        counts: list[Counts] = [
            decoder.decode(torch.tensor(prompt.tokens), max_new_tokens=20).counts()
            for prompt in setting.prompts
        ]
        expected = facts.expected_tau(name, gamma)
        assert expected.numerators == pytest.approx([one.emitted for one in counts])
        assert expected.denominators == pytest.approx([one.verifications for one in counts])

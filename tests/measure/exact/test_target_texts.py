from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from distillspec.measure.exact.target_texts import drawn_texts, text_facts
from distillspec.models.runners.eager import CausalRunner
from distillspec.speculation.decoding.engine import Configuration, SpeculativeDecoder
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.records import Counts
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.token import verify_token

if TYPE_CHECKING:
    from distillspec.models.sampling.generate import DrawnText
    from tests.measured import Setting


def drawn(setting: Setting, temperature: float, seed: int = 0) -> list[DrawnText]:
    return drawn_texts(
        setting.target,
        setting.prompts,
        SamplingPolicy(temperature),
        tokens=20,
        seed=seed,
        vocab_size=None,
    )


def test_texts_follow_their_seed_and_prompts(setting: Setting) -> None:
    assert drawn(setting, 1.0) == drawn(setting, 1.0)
    assert drawn(setting, 1.0) != drawn(setting, 1.0, seed=1)
    assert [text.prompt for text in drawn(setting, 1.0)] == [p.tokens for p in setting.prompts]
    assert all(len(text.response) == 20 for text in drawn(setting, 1.0))


def test_alpha_stops_at_the_end_of_a_text_and_the_expected_tau_does_not(setting: Setting) -> None:
    policy, texts = SamplingPolicy(1.0), drawn(setting, 1.0)
    end = texts[0].response[5]
    found = {
        ends: text_facts(
            setting.target,
            setting.drafts,
            texts,
            policy,
            documents=[prompt.document for prompt in setting.prompts],
            ends=frozenset(ends),
            vocab_size=None,
        )
        for ends in ((), (end,))
    }
    assert found[(end,)].tokens[0] == texts[0].response.index(end) + 1 < 20
    assert found[()].tokens == [20] * len(texts)
    assert found[(end,)].overlap["control"][0] < found[()].overlap["control"][0]
    assert found[(end,)].at_argmax["control"][0] < found[()].at_argmax["control"][0]
    assert found[(end,)].entropy[0] < found[()].entropy[0]
    assert found[(end,)].keep_probabilities == found[()].keep_probabilities
    assert all(
        len(keep_probabilities) == 20
        for keep_probabilities in found[(end,)].keep_probabilities["control"]
    )


def test_greedy_expectation_is_what_decoding_counts(setting: Setting) -> None:
    """At temperature 0 nothing is random, so both must be the same numbers, text by text."""
    import torch

    policy, gamma = SamplingPolicy(0.0), 3
    facts = text_facts(
        setting.target,
        setting.drafts,
        drawn(setting, 0.0),
        policy,
        documents=[prompt.document for prompt in setting.prompts],
        ends=frozenset({0}),
        vocab_size=None,
    )
    for name, draft in setting.drafts.items():
        decoder = SpeculativeDecoder(
            CausalRunner(setting.target),
            CausalRunner(draft),
            Configuration("standard", gamma, ChainDraft(), FixedLength(), verify_token),
            policy,
            GeneratorSource(torch.Generator().manual_seed(0)),
        )
        counts: list[Counts] = [
            decoder.decode(torch.tensor(prompt.tokens), max_new_tokens=20).counts()
            for prompt in setting.prompts
        ]
        expected = facts.expected_tau(name, gamma)
        assert expected.numerators == pytest.approx([one.emitted for one in counts])
        assert expected.denominators == pytest.approx([one.verifications for one in counts])

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.speculation.choose.chooser import RoundOutcome
from distillspec.speculation.decoding.engine import (
    AutoregressiveDecoder,
    Configuration,
    SpeculativeDecoder,
)
from distillspec.speculation.decoding.observers import DecodedRound, RoundObserver
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.entropy import AdaEDL
from distillspec.speculation.draft.lookup import LookupDraft
from distillspec.speculation.draft.nothing import NoDraft
from distillspec.speculation.draft.sequences import SequencesDraft
from distillspec.speculation.draft.stop import FixedLength, StopRule
from distillspec.speculation.random_source import GeneratorSource, RandomSource
from distillspec.speculation.records import RoundRecord, TokenStatus
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.block import verify_block
from distillspec.speculation.verify.kseq import verify_kseq
from distillspec.speculation.verify.multipath import verify_multipath
from distillspec.speculation.verify.recursive import verify_recursive, verify_recursive_distinct
from distillspec.speculation.verify.token import verify_token
from distillspec.speculation.verify.traversal import verify_traversal
from eval.bench.optimal_transport import verify_transport
from tests.speculation.bigram import BigramRunner
from tests.speculation.branches import (
    Branches,
    HistoryRunner,
    Law,
    autoregressive_distribution,
    distribution_by_rounds,
    distribution_of,
    mutant,
    total_variation,
)

PROMPT = (0, 1)
EXACT = 1e-9


def standard(gamma: int, **parts: Any) -> Configuration:
    rules = {"draft": ChainDraft(), "stop": FixedLength(), "verify": verify_token} | parts
    return Configuration("standard", gamma, **rules)


def random_table(V: int, seed: int, *, forbidden: float = 0.0) -> Tensor:
    """Logits [V, V]; about the given share of them forbidden, at least one a row allowed."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(V, V, generator=generator, dtype=torch.float64) * 1.5
    is_forbidden = torch.rand(V, V, generator=generator) < forbidden
    is_forbidden[torch.arange(V), torch.randint(V, (V,), generator=generator)] = False
    return table.masked_fill(is_forbidden, -torch.inf)


class Pair(NamedTuple):
    target: BigramRunner
    draft: BigramRunner

    def state(self) -> Hashable:
        """All that the engine keeps between rounds except the tokens it has emitted."""
        return tuple(self.target.tokens[0].tolist()), tuple(self.draft.tokens[0].tolist())


def random_pair(
    V: int,
    *,
    runner: type[BigramRunner] = HistoryRunner,
    forbidden: tuple[float, float] = (0.0, 0.0),
    capacity: int = 64,
    seed: int = 0,
) -> Pair:
    target, draft = (
        runner(random_table(V, 2 * seed + side, forbidden=share), capacity=capacity)
        for side, share in enumerate(forbidden)
    )
    return Pair(target, draft)


def distribution_of_engine(
    pair: Pair,
    configuration: Configuration,
    policy: SamplingPolicy,
    max_new_tokens: int,
    eos_token_ids: frozenset[int] = frozenset(),
    prompt: tuple[int, ...] = PROMPT,
) -> Law:
    def stream(random_source: Branches) -> Any:
        decoder = SpeculativeDecoder(pair.target, pair.draft, configuration, policy, random_source)
        return decoder.rounds(
            torch.tensor(prompt), max_new_tokens=max_new_tokens, eos_token_ids=eos_token_ids
        )

    return distribution_by_rounds(stream, pair.state)


def distance_from_the_target(
    pair: Pair,
    configuration: Configuration,
    policy: SamplingPolicy,
    max_new_tokens: int,
    eos_token_ids: frozenset[int] = frozenset(),
) -> float:
    """Total variation between the distribution of entire outputs and the target's own."""
    distribution = distribution_of_engine(
        pair, configuration, policy, max_new_tokens, eos_token_ids
    )
    assert sum(distribution.values()) == pytest.approx(1.0, abs=1e-12)
    return total_variation(
        distribution,
        autoregressive_distribution(pair.target, policy, PROMPT, max_new_tokens, eos_token_ids),
    )


# --- losslessness, by exact enumeration ----------------------------------------------------------

POLICIES = {
    "T=0": SamplingPolicy(0.0),
    "T=0.5": SamplingPolicy(0.5),
    "T=1": SamplingPolicy(1.0),
    "top-k": SamplingPolicy(1.3, top_k=2),
    "nucleus": SamplingPolicy(0.8, nucleus=0.75),
    "both": SamplingPolicy(2.0, top_k=2, nucleus=0.6),
}


@pytest.mark.parametrize(
    "eos_token_ids", [frozenset[int](), frozenset({2})], ids=["endless", "end"]
)
@pytest.mark.parametrize("gamma", [1, 2, 3])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_whole_outputs_have_the_distribution_of_the_target(
    policy: SamplingPolicy, gamma: int, eos_token_ids: frozenset[int]
) -> None:
    pair = random_pair(3)
    max_new_tokens = {1: 4, 2: 3, 3: 3 if eos_token_ids else 2}[gamma]
    distance = distance_from_the_target(
        pair, standard(gamma), policy, max_new_tokens, eos_token_ids
    )
    assert distance < EXACT


SEVERAL = {
    "k-seq": {"draft": SequencesDraft(2), "verify": verify_kseq},
    "recursive": {"draft": SequencesDraft(2), "verify": verify_recursive},
    "distinct": {"draft": SequencesDraft(2, distinct=True), "verify": verify_recursive_distinct},
    "traversal": {"draft": SequencesDraft(2), "verify": verify_traversal},
    "multi-path": {"draft": SequencesDraft(2), "verify": verify_multipath},
    "block": {"verify": verify_block},
}


@pytest.mark.parametrize("parts", SEVERAL.values(), ids=SEVERAL.keys())
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_every_rule_gives_entire_outputs_the_distribution_of_the_target(
    parts: dict[str, Any], temperature: float
) -> None:
    pair = random_pair(3)
    distance = distance_from_the_target(
        pair, standard(2, **parts), SamplingPolicy(temperature), 3 if temperature else 4
    )
    assert distance < EXACT


class Whimsical(StopRule):
    """Stops here and there, by what it sees: sequences of one round end at different places."""

    def stops(self, logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None) -> bool:
        return bool(policy.untempered(logits).max() > 0.6)

    def stops_after(self, logits: Tensor, token: Tensor, policy: SamplingPolicy) -> bool:
        return int(token) == 2


@pytest.mark.parametrize("name", ["k-seq", "recursive", "distinct", "traversal"])
def test_sequences_that_end_at_different_places_keep_the_distribution(name: str) -> None:
    configuration = standard(2, **SEVERAL[name], stop=Whimsical())
    assert distance_from_the_target(random_pair(3), configuration, SamplingPolicy(), 2) < EXACT


@pytest.mark.parametrize("name", ["block", "k-seq", "distinct", "traversal"])
def test_adaedl_with_every_rule_that_takes_it_keeps_the_distribution(name: str) -> None:
    """With a threshold that learns as it goes; some drafts it ends, some it does not."""
    pair, policy, lengths = random_pair(3), SamplingPolicy(), set()
    walked: list[AdaEDL] = []

    def stream(random_source: Branches) -> Any:
        walked.append(AdaEDL(0.62, 0.5))
        way = standard(2, **SEVERAL[name], stop=walked[-1])
        for emitted in SpeculativeDecoder(
            pair.target, pair.draft, way, policy, random_source
        ).rounds(torch.tensor(PROMPT), max_new_tokens=2):
            lengths.add(emitted.record.drafted)
            yield emitted

    distribution = distribution_by_rounds(stream, lambda: (pair.state(), tuple(walked[-1].state())))
    assert (
        total_variation(distribution, autoregressive_distribution(pair.target, policy, PROMPT, 2))
        < EXACT
    )
    assert len(lengths) > 1


@pytest.mark.parametrize("name", ["k-seq", "distinct", "traversal"])
def test_after_every_round_the_drafts_cache_holds_the_text_or_its_beginning(name: str) -> None:
    target, draft = random_pair(3)
    for seed in range(20):
        decoder = SpeculativeDecoder(
            target,
            draft,
            standard(3, **SEVERAL[name], stop=Whimsical()),
            SamplingPolicy(),
            seeded(seed),
        )
        text = list(PROMPT)
        for emitted in decoder.rounds(torch.tensor(PROMPT), max_new_tokens=12):
            text += emitted.tokens
            for runner in (target, draft):
                held = runner.tokens[0].tolist()
                common = min(len(held), len(text))  # the last round may be cut short
                assert held[:common] == text[:common]


@pytest.mark.parametrize("parts", SEVERAL.values(), ids=SEVERAL.keys())
def test_every_rule_keeps_to_a_cache_with_little_room(parts: dict[str, Any]) -> None:
    pair = random_pair(3, capacity=len(PROMPT) + 3)
    assert distance_from_the_target(pair, standard(2, **parts), SamplingPolicy(), 3) < EXACT


@pytest.mark.parametrize(
    "forbidden", [(0.0, 0.5), (0.5, 0.0), (0.5, 0.5)], ids=["draft", "target", "both"]
)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_distribution_holds_where_a_model_gives_tokens_probability_zero(
    forbidden: tuple[float, float], seed: int
) -> None:
    pair = random_pair(4, forbidden=forbidden, seed=seed)
    assert distance_from_the_target(pair, standard(2), SamplingPolicy(), 3) < EXACT


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_the_distribution_holds_on_a_bigram_pair_of_five_tokens(temperature: float) -> None:
    pair = random_pair(5, runner=BigramRunner, forbidden=(0.0, 0.3), seed=5)
    assert distance_from_the_target(pair, standard(2), SamplingPolicy(temperature), 2) < EXACT


def test_the_distribution_holds_for_a_draft_that_never_agrees() -> None:
    target = random_table(4, 0)
    is_low = torch.arange(4) < 2
    pair = Pair(
        HistoryRunner(target.masked_fill(is_low, -torch.inf)),
        HistoryRunner(target.masked_fill(~is_low, -torch.inf)),
    )
    assert distance_from_the_target(pair, standard(2), SamplingPolicy(), 3) < EXACT


def test_the_distribution_holds_after_a_prompt_of_one_token() -> None:
    pair, policy = random_pair(3), SamplingPolicy()
    distribution = distribution_of_engine(pair, standard(2), policy, 3, prompt=(2,))
    assert (
        total_variation(distribution, autoregressive_distribution(pair.target, policy, (2,), 3))
        < EXACT
    )


def test_the_distribution_holds_where_the_cache_leaves_no_room_for_a_full_block() -> None:
    pair = random_pair(3, capacity=len(PROMPT) + 3 - 1)
    assert distance_from_the_target(pair, standard(3), SamplingPolicy(), 3) < EXACT


def test_the_distribution_holds_for_a_rule_that_stops_early_by_what_it_sees() -> None:
    class WhereSure(StopRule):
        def stops(
            self, logits: Tensor, policy: SamplingPolicy, entropy: Tensor | None = None
        ) -> bool:
            return bool(policy.untempered(logits).max() > 0.6)

    rule: StopRule = WhereSure()
    distance = distance_from_the_target(
        random_pair(3), standard(3, stop=rule), SamplingPolicy(0.7), 3
    )
    assert distance < EXACT


def test_walking_decode_to_the_very_end_gives_the_same_distribution_as_walking_round_by_round() -> (
    None
):
    pair, policy = random_pair(3), SamplingPolicy()

    def decode(random_source: Branches) -> list[int]:
        decoder = SpeculativeDecoder(pair.target, pair.draft, standard(2), policy, random_source)
        return decoder.decode(torch.tensor(PROMPT), max_new_tokens=2).tokens

    distribution = distribution_of(decode)
    assert (
        total_variation(distribution, distribution_of_engine(pair, standard(2), policy, 2)) < EXACT
    )
    assert (
        total_variation(distribution, autoregressive_distribution(pair.target, policy, PROMPT, 2))
        < EXACT
    )


@pytest.mark.parametrize(
    "eos_token_ids", [frozenset[int](), frozenset({2})], ids=["endless", "end"]
)
def test_the_autoregressive_decoder_has_the_distribution_of_the_target(
    eos_token_ids: frozenset[int],
) -> None:
    runner, policy = HistoryRunner(random_table(3, 0)), SamplingPolicy(0.7)

    def decode(random_source: Branches) -> list[int]:
        decoder = AutoregressiveDecoder(runner, policy, random_source)
        return decoder.decode(
            torch.tensor(PROMPT), max_new_tokens=3, eos_token_ids=eos_token_ids
        ).tokens

    expected = autoregressive_distribution(runner, policy, PROMPT, 3, eos_token_ids)
    assert total_variation(distribution_of(decode), expected) < EXACT


class InTurn:
    """A chooser that goes round its arms; which arm is next depends on the rounds so far."""

    def __init__(self, *arms: Configuration) -> None:
        self._arms = arms
        self.watches: tuple[str, ...] = ()
        self.rounds = 0

    def begin(self) -> None: ...

    def choose(self) -> Configuration:
        return self._arms[self.rounds % len(self._arms)]

    def learn(self, outcome: RoundOutcome) -> None:
        self.rounds += 1

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Any, *, where: str) -> None: ...


def distribution_in_turn(
    target: BigramRunner,
    drafts: dict[str, BigramRunner],
    arms: list[Configuration],
    policy: SamplingPolicy,
    max_new_tokens: int,
) -> Law:
    choosers = []

    def stream(random_source: Branches) -> Any:
        choosers.append(InTurn(*arms))
        decoder = SpeculativeDecoder(target, drafts, choosers[-1], policy, random_source)
        return decoder.rounds(torch.tensor(PROMPT), max_new_tokens=max_new_tokens)

    def state() -> Hashable:
        held = (tuple(runner.tokens[0].tolist()) for runner in (target, *drafts.values()))
        return (*held, choosers[-1].rounds)

    return distribution_by_rounds(stream, state)


SEVERAL_DRAFTS = [
    standard(2, model="one"),
    standard(1, model="other"),
    standard(2, draft=LookupDraft(2)),
    standard(1, draft=NoDraft()),
    standard(1, model="other", draft=SequencesDraft(2), verify=verify_kseq),
]


@pytest.mark.parametrize("turn", range(5))
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_drafts_that_take_turns_with_each_other_with_lookup_and_with_none_keep_the_distribution(
    temperature: float, turn: int
) -> None:
    target, policy = HistoryRunner(random_table(3, 0)), SamplingPolicy(temperature)
    drafts = {"one": HistoryRunner(random_table(3, 1)), "other": HistoryRunner(random_table(3, 2))}
    arms = SEVERAL_DRAFTS[turn:] + SEVERAL_DRAFTS[:turn]
    distribution = distribution_in_turn(target, dict(drafts), arms, policy, 4)
    assert sum(distribution.values()) == pytest.approx(1.0, abs=1e-12)
    assert (
        total_variation(distribution, autoregressive_distribution(target, policy, PROMPT, 4))
        < EXACT
    )


# --- the enumeration bites -----------------------------------------------------------------------


def test_the_enumeration_rejects_a_correction_drawn_from_p() -> None:
    broken = mutant(verify_token, "residual(_1, _2)", "_1")
    policy = SamplingPolicy()
    assert distance_from_the_target(random_pair(3), standard(2, verify=broken), policy, 2) > 0.01


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_the_enumeration_rejects_an_argmax_draw_that_is_verified_with_soft_q(
    temperature: float,
) -> None:
    class ArgmaxDraft(ChainDraft):
        propose = mutant(  # type: ignore[assignment]
            ChainDraft.propose,
            "policy.draw_with_distribution(_1, _2)",
            "(_1.argmax(-1), policy.distribution(_1))",
        )

    policy = SamplingPolicy(temperature)
    broken = standard(2, draft=ArgmaxDraft())
    assert distance_from_the_target(random_pair(3), broken, policy, 2) > 0.01


def test_the_enumeration_rejects_a_cache_that_forgets_the_wrong_end() -> None:
    class Confused(HistoryRunner):
        def rollback(self, length: int) -> None:
            self._tokens = self._tokens[:, self.length - length :]

    pair = random_pair(3, runner=Confused)
    assert distance_from_the_target(pair, standard(1), SamplingPolicy(), 3) > 0.01


# --- greedy, and a draft that is the target ------------------------------------------------------


def seeded(seed: int = 0) -> RandomSource:
    return GeneratorSource(torch.Generator().manual_seed(seed))


def random_float32_pair(V: int, seed: int) -> Pair:
    tables = torch.randn(2, V, V, generator=torch.Generator().manual_seed(seed))
    return Pair(HistoryRunner(tables[0]), HistoryRunner(tables[1]))


@pytest.mark.parametrize("gamma", [1, 4, 7])
@pytest.mark.parametrize("seed", range(5))
def test_greedy_decoding_emits_the_targets_argmax_for_every_draft(gamma: int, seed: int) -> None:
    pair, prompt = random_float32_pair(50, seed), torch.tensor([3, 1, 4])
    policy = SamplingPolicy(0.0)
    decoder = SpeculativeDecoder(pair.target, pair.draft, standard(gamma), policy, seeded(seed))
    tokens = decoder.decode(prompt, max_new_tokens=30).tokens
    plain = AutoregressiveDecoder(pair.target, policy, seeded()).decode(prompt, max_new_tokens=30)
    assert tokens == plain.tokens
    text = [3, 1, 4]
    for token in tokens:
        pair.target.reset()
        assert token == int(pair.target.feed(torch.tensor([text]))[0, -1].argmax())
        text.append(token)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("gamma", [1, 4])
def test_a_draft_equal_to_the_target_is_fully_accepted(gamma: int, temperature: float) -> None:
    table = torch.randn(40, 40, generator=torch.Generator().manual_seed(1))
    decoder = SpeculativeDecoder(
        HistoryRunner(table),
        HistoryRunner(table),
        standard(gamma),
        SamplingPolicy(temperature),
        seeded(),
    )
    generation = decoder.decode(torch.tensor([1, 2]), max_new_tokens=64)
    counts = generation.counts()
    assert counts.draft_acceptance() == 1.0
    assert counts.block_efficiency() == gamma + 1
    assert set(generation.statuses) == {TokenStatus.ACCEPTED, TokenStatus.BONUS}


# --- forwards and caches -------------------------------------------------------------------------


class FeedingLog(HistoryRunner):
    """Remembers every token it was fed and every one it was made to forget, with its position."""

    def __init__(self, table: Tensor) -> None:
        super().__init__(table)
        self.forwards = 0
        self.fed: list[tuple[int, int]] = []
        self.forgotten: list[tuple[int, int]] = []

    def feed(self, tokens: Tensor) -> Tensor:
        self.forwards += 1
        self.fed += enumerate(tokens[0].tolist(), start=self.length)
        return super().feed(tokens)

    def rollback(self, length: int) -> None:
        self.forgotten += enumerate(self.tokens[0, length:].tolist(), start=length)
        super().rollback(length)


@pytest.mark.parametrize("likeness", [0.0, 0.5, 1.0], ids=["unlike", "akin", "equal"])
@pytest.mark.parametrize("gamma", [1, 3])
def test_no_committed_token_is_ever_forgotten_and_fed_again(gamma: int, likeness: float) -> None:
    tables = torch.randn(2, 20, 20, generator=torch.Generator().manual_seed(2)) * 1.5
    target = FeedingLog(tables[0])
    draft = FeedingLog(likeness * tables[0] + (1.0 - likeness) * tables[1])
    prompt = [5, 6, 7, 8]
    decoder = SpeculativeDecoder(target, draft, standard(gamma), SamplingPolicy(), seeded())
    text, rounds, drafted, draft_steps = list(prompt), 0, 0, 0
    for emitted in decoder.rounds(torch.tensor(prompt), max_new_tokens=51):
        text += emitted.tokens
        rounds += 1
        drafted += emitted.record.drafted
        draft_steps += emitted.record.draft_steps
        if len(text) < len(prompt) + 51:
            assert target.tokens.tolist() == [text[:-1]]
            assert draft.tokens.tolist() in ([text[:-1]], [text[:-2]])
            for model in (target, draft):
                assert all(text[at : at + 1] != [token] for at, token in model.forgotten)
        target.forgotten.clear()
        draft.forgotten.clear()
    assert target.forwards == 1 + rounds  # the prompt is one
    assert draft.forwards == 1 + draft_steps == 1 + drafted
    assert len(target.fed) == len(prompt) - 1 + rounds + drafted


def test_a_draft_that_rested_reads_what_was_committed_meanwhile_once_and_in_its_own_round() -> None:
    tables = torch.randn(3, 20, 20, generator=torch.Generator().manual_seed(4))
    target, first, second = (FeedingLog(table) for table in tables)
    arms = [
        standard(2, model="one"),
        standard(3, draft=LookupDraft(2)),
        standard(2, model="one"),
        standard(3, model="other"),
    ]
    prompt = [5, 6, 7, 8]
    decoder = SpeculativeDecoder(
        target, {"one": first, "other": second}, InTurn(*arms), SamplingPolicy(), seeded()
    )
    text, rested = list(prompt), {"one": 0, "other": 0}
    logs = {"one": first, "other": second}
    for number, emitted in enumerate(decoder.rounds(torch.tensor(prompt), max_new_tokens=60)):
        if number == 0:
            for runner in (first, second):  # the prompt, before the clock runs
                runner.fed = runner.fed[3:]
        uses = arms[number % len(arms)].model
        for name, log in logs.items():
            if name != uses:
                assert log.fed == []  # a draft that is not chosen costs nothing
                continue
            gamma, missing = arms[number % len(arms)].gamma, len(text) - rested[name] - 3
            caught_up = list(enumerate(text))[rested[name] + 3 :]
            assert log.fed[:missing] == caught_up
            assert len(log.fed) == missing + gamma - 1
            assert emitted.record.draft_steps == gamma
            rested[name] = log.length - 3
            log.fed = []
        text += emitted.tokens
    assert len(text) == 64


def test_a_chooser_learns_where_a_text_begins() -> None:
    class Informed(InTurn):
        def begin(self) -> None:
            self.begun = [*getattr(self, "begun", []), self.rounds]

    chooser, pair = Informed(standard(1)), random_pair(4)
    decoder = SpeculativeDecoder(pair.target, pair.draft, chooser, SamplingPolicy(0.0), seeded())
    first = len(decoder.decode(torch.tensor([1, 2]), max_new_tokens=5).rounds)
    assert len(list(decoder.rounds(torch.tensor([1, 2]), max_new_tokens=5))) == first > 1
    assert chooser.begun == [0, first]


def test_watched_drafts_read_every_token_once_and_their_reading_is_counted() -> None:
    tables = torch.randn(3, 20, 20, generator=torch.Generator().manual_seed(4))
    target, first, second = (FeedingLog(table) for table in tables)
    arms = [standard(3, model="one"), standard(2, draft=LookupDraft(2)), standard(1, model="other")]
    chooser, prompt = InTurn(*arms), [5, 6, 7, 8]
    chooser.watches = ("one", "other")
    decoder = SpeculativeDecoder(
        target, {"one": first, "other": second}, chooser, SamplingPolicy(), seeded()
    )
    text, steps = list(prompt), 0
    for emitted in decoder.rounds(torch.tensor(prompt), max_new_tokens=40):
        text += emitted.tokens
        steps += emitted.record.draft_steps
        if len(text) < 44:
            assert first.tokens.tolist() == second.tokens.tolist() == [text[:-1]]
            for model in (first, second):
                assert all(text[at : at + 1] != [token] for at, token in model.forgotten)
        first.forgotten.clear()
        second.forgotten.clear()
    assert first.forwards + second.forwards == 2 + steps


def test_the_target_is_run_fewer_times_than_tokens_come_out() -> None:
    table = torch.randn(20, 20, generator=torch.Generator().manual_seed(3))
    target = FeedingLog(table)
    decoder = SpeculativeDecoder(
        target, HistoryRunner(table * 0.8), standard(4), SamplingPolicy(), seeded()
    )
    generation = decoder.decode(torch.tensor([1]), max_new_tokens=60)
    assert target.forwards == len(generation.rounds)
    assert target.forwards < 60 == len(generation.tokens)


def test_the_baseline_feeds_each_token_once() -> None:
    target = FeedingLog(torch.randn(20, 20, generator=torch.Generator().manual_seed(3)))
    decoder = AutoregressiveDecoder(target, SamplingPolicy(), seeded())
    generation = decoder.decode(torch.tensor([1, 2, 3]), max_new_tokens=10)
    assert target.fed == list(enumerate([1, 2, 3, *generation.tokens[:-1]]))
    assert target.forwards == 1 + 10 == 1 + generation.counts().target_forwards
    assert generation.counts().block_efficiency() == 1.0
    assert set(generation.statuses) == {TokenStatus.PLAIN}


def test_a_decoder_can_be_used_again() -> None:
    pair, policy = random_pair(4), SamplingPolicy(0.0)
    decoder = SpeculativeDecoder(pair.target, pair.draft, standard(3), policy, seeded())
    first, second = (
        decoder.decode(torch.tensor([1, 2]), max_new_tokens=9).tokens for _ in range(2)
    )
    assert first == second


def test_the_stream_emits_what_decode_returns() -> None:
    pair = random_pair(5)
    prompt, eos_token_ids = torch.tensor([1, 2]), frozenset({4})
    streaming, decoding = (
        SpeculativeDecoder(pair.target, pair.draft, standard(2), SamplingPolicy(), seeded(7))
        for _ in range(2)
    )
    rounds = list(streaming.rounds(prompt, max_new_tokens=12, eos_token_ids=eos_token_ids))
    generation = decoding.decode(prompt, max_new_tokens=12, eos_token_ids=eos_token_ids)
    assert [token for emitted in rounds for token in emitted.tokens] == generation.tokens
    assert [status for emitted in rounds for status in emitted.statuses] == generation.statuses
    assert [emitted.record for emitted in rounds] == generation.rounds


# --- ends and limits -----------------------------------------------------------------------------


def counting_table(V: int) -> Tensor:
    """After v comes v + 1, surely."""
    table = torch.full((V, V), -torch.inf, dtype=torch.float64)
    return table.index_put((torch.arange(V), (torch.arange(V) + 1) % V), torch.tensor(0.0).double())


def test_end_of_text_inside_a_block_cuts_the_output_after_it() -> None:
    table = counting_table(20)
    decoder = SpeculativeDecoder(
        BigramRunner(table), BigramRunner(table), standard(4), SamplingPolicy(), seeded()
    )
    generation = decoder.decode(torch.tensor([0]), max_new_tokens=30, eos_token_ids=frozenset({7}))
    assert generation.tokens == [1, 2, 3, 4, 5, 6, 7]
    assert generation.finished
    assert [record.emitted for record in generation.rounds] == [5, 2]
    assert [record.cut for record in generation.rounds] == [False, True]
    assert (
        generation.statuses
        == [TokenStatus.ACCEPTED] * 4 + [TokenStatus.BONUS] + [TokenStatus.ACCEPTED] * 2
    )
    assert generation.counts().block_efficiency() == 5.0


def test_fates_tell_the_targets_corrections_from_what_it_kept_and_what_it_added() -> None:
    V = 20
    target, draft = counting_table(V), counting_table(V)
    draft[3] = counting_table(V)[10]  # after 3 the draft predicts 11
    decoder = SpeculativeDecoder(
        BigramRunner(target), BigramRunner(draft), standard(2), SamplingPolicy(), seeded()
    )
    generation = decoder.decode(torch.tensor([0]), max_new_tokens=7)
    assert generation.tokens == [1, 2, 3, 4, 5, 6, 7]
    accepted, corrected, bonus = TokenStatus.ACCEPTED, TokenStatus.CORRECTED, TokenStatus.BONUS
    assert generation.statuses == [accepted, accepted, bonus, corrected, accepted, accepted, bonus]
    assert [record.accepted for record in generation.rounds] == [2, 0, 2]


def test_end_of_text_as_the_last_token_of_a_block_cuts_nothing() -> None:
    table = counting_table(20)
    decoder = SpeculativeDecoder(
        BigramRunner(table), BigramRunner(table), standard(4), SamplingPolicy(), seeded()
    )
    generation = decoder.decode(torch.tensor([0]), max_new_tokens=30, eos_token_ids=frozenset({5}))
    assert generation.tokens == [1, 2, 3, 4, 5]
    assert generation.finished
    assert [record.cut for record in generation.rounds] == [False]


@pytest.mark.parametrize("max_new_tokens", [0, 1, 4, 5, 6, 11])
def test_the_length_limit_is_kept_and_rounds_without_room_are_left_out_of_tau(
    max_new_tokens: int,
) -> None:
    table = counting_table(20)
    decoder = SpeculativeDecoder(
        BigramRunner(table), BigramRunner(table), standard(4), SamplingPolicy(), seeded()
    )
    generation = decoder.decode(torch.tensor([0]), max_new_tokens=max_new_tokens)
    assert generation.tokens == list(range(1, max_new_tokens + 1))
    assert len(generation.statuses) == max_new_tokens
    assert not generation.finished
    assert all(record.drafted == 4 for record in generation.rounds)
    assert [record.cut for record in generation.rounds] == (
        [False] * (max_new_tokens // 5) + [True] * (max_new_tokens % 5 > 0)
    )


def test_tau_is_not_pulled_down_by_the_short_blocks_that_fit_before_the_limit() -> None:
    """In room for one token only a block without an accepted one is complete: it must not count."""
    never = random_float32_pair(50, 0)
    decoder = SpeculativeDecoder(
        never.target, never.draft, standard(4), SamplingPolicy(0.0), seeded()
    )
    generation = decoder.decode(torch.tensor([0]), max_new_tokens=4)
    assert all(record.cut for record in generation.rounds)
    assert generation.counts().verifications == 0


def test_the_baseline_stops_at_end_of_text() -> None:
    decoder = AutoregressiveDecoder(BigramRunner(counting_table(9)), SamplingPolicy(), seeded())
    generation = decoder.decode(torch.tensor([0]), max_new_tokens=8, eos_token_ids=frozenset({3}))
    assert generation.tokens == [1, 2, 3]
    assert generation.finished


def test_the_baseline_decodes_nothing_where_nothing_is_asked_for() -> None:
    decoder = AutoregressiveDecoder(BigramRunner(counting_table(9)), SamplingPolicy(), seeded())
    generation = decoder.decode(torch.tensor([0]), max_new_tokens=0)
    assert generation.tokens == []
    assert not generation.finished


def test_a_cache_that_exactly_holds_the_text_is_enough_and_never_overfed() -> None:
    pair = random_pair(4, capacity=2 + 9 - 1)  # BigramRunner asserts its capacity
    decoder = SpeculativeDecoder(pair.target, pair.draft, standard(4), SamplingPolicy(), seeded(5))
    generation = decoder.decode(torch.tensor([1, 2]), max_new_tokens=9)
    assert len(generation.tokens) == 9
    assert {record.drafted for record in generation.rounds if not record.cut} <= {4}


def test_a_round_that_a_full_cache_shortened_counts_in_no_rate() -> None:
    pair = random_pair(4, capacity=2 + 9 + 3)
    way = standard(2, draft=SequencesDraft(4), verify=verify_kseq)
    decoder = SpeculativeDecoder(pair.target, pair.draft, way, SamplingPolicy(), seeded(5))
    rounds = decoder.decode(torch.tensor([1, 2]), max_new_tokens=9).rounds
    assert {record.drafted for record in rounds} >= {8, 4}
    assert {record.drafted for record in rounds if not record.cut} == {8}


@pytest.mark.parametrize("small", [0, 1], ids=["target", "draft"])
def test_a_text_that_no_cache_can_hold_is_refused(small: int) -> None:
    capacities = [64, 64]
    capacities[small] = 9
    target, draft = (BigramRunner(random_table(4, 0), capacity=size) for size in capacities)
    decoder = SpeculativeDecoder(target, draft, standard(2), SamplingPolicy(), seeded())
    with pytest.raises(
        DistillSpecError, match="needs room for 10 tokens; a model or its cache has 9"
    ):
        decoder.decode(torch.tensor([1, 2]), max_new_tokens=9)


def test_an_empty_prompt_is_refused() -> None:
    decoder = AutoregressiveDecoder(BigramRunner(random_table(4, 0)), SamplingPolicy(), seeded())
    with pytest.raises(DistillSpecError, match="the prompt has no tokens"):
        decoder.decode(torch.tensor([], dtype=torch.long), max_new_tokens=9)


# --- time ----------------------------------------------------------------------------------------


class SlowPrefill(BigramRunner):
    """Takes 50 ms over any block of the prompt's size."""

    def feed(self, tokens: Tensor) -> Tensor:
        if tokens.shape[1] >= 10:
            time.sleep(0.05)
        return super().feed(tokens)


def test_the_prefill_of_both_models_is_outside_the_decoding_time() -> None:
    slow, fast = SlowPrefill(random_table(4, 0)), BigramRunner(random_table(4, 0))
    prompt = torch.zeros(11, dtype=torch.long)
    for target, draft in ((slow, fast), (fast, slow)):
        decoder = SpeculativeDecoder(target, draft, standard(2), SamplingPolicy(), seeded())
        generation = decoder.decode(prompt, max_new_tokens=2)
        assert generation.prefill_seconds >= 0.05 > generation.decode_seconds > 0.0
    plain = AutoregressiveDecoder(slow, SamplingPolicy(), seeded()).decode(prompt, max_new_tokens=2)
    assert plain.prefill_seconds >= 0.05 > plain.decode_seconds > 0.0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("fault", ["target", "draft"])
@pytest.mark.parametrize(
    ("draft", "verify"),
    [
        (ChainDraft(), verify_token),
        (ChainDraft(), verify_block),
        (SequencesDraft(3), verify_kseq),
        (SequencesDraft(3), verify_multipath),
        (SequencesDraft(3), verify_recursive),
        (SequencesDraft(3, distinct=True), verify_recursive_distinct),
        (SequencesDraft(3), verify_traversal),
        (SequencesDraft(2), verify_transport),
        (LookupDraft(2), verify_token),
        (NoDraft(), verify_token),
    ],
)
def test_logits_that_give_no_distribution_end_in_an_error_that_names_the_model(
    draft: Any, verify: Any, fault: str, value: float, temperature: float
) -> None:
    tables = {
        name: torch.randn(5, 5, generator=torch.Generator().manual_seed(i))
        for i, name in enumerate(("target", "draft"))
    }
    tables[fault][:, 3] = value
    target, drafting = (BigramRunner(tables[name]) for name in ("target", "draft"))
    way = Configuration("one", 3, draft, FixedLength(), verify)
    policy = SamplingPolicy(temperature)
    random_source = GeneratorSource(torch.Generator().manual_seed(0))
    decoders: list[Any] = [SpeculativeDecoder(target, drafting, way, policy, random_source)]
    if fault == "target":
        decoders.append(AutoregressiveDecoder(target, policy, random_source))
    if fault == "draft" and isinstance(draft, LookupDraft | NoDraft):
        return  # the draft is not asked
    for decoder in decoders:
        with pytest.raises(DistillSpecError, match=f"the logits of the {fault} are NaN or inf"):
            decoder.decode(torch.tensor([0, 1, 0, 1]), max_new_tokens=6)


def test_a_prompt_that_the_models_have_read_is_continued_as_if_they_read_it_first() -> None:
    pair = random_pair(5)

    class Seen(RoundObserver):
        def __init__(self) -> None:
            self.drafted_tokens: list[int] = []

        def committed(self, decoded: DecodedRound, record: RoundRecord) -> RoundRecord:
            self.drafted_tokens.append(decoded.proposal.drafted)
            return record

    def decoder(seen: Seen) -> SpeculativeDecoder:
        models = pair.target, pair.draft
        return SpeculativeDecoder(
            *models, standard(2), SamplingPolicy(), seeded(), observers=[seen]
        )

    prompt, first, second = torch.tensor(PROMPT), Seen(), Seen()
    rounds = list(decoder(first).rounds(prompt, max_new_tokens=9))
    for model in pair:
        model.reset()
        model.feed(prompt[:-1].unsqueeze(0))
    assert list(decoder(second).rounds_after(prompt, 9)) == rounds
    assert first.drafted_tokens == second.drafted_tokens == [r.record.drafted for r in rounds]

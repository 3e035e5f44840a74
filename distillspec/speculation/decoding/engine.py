"""The decode loop: choose, draft, verify, commit. It names no method, rule or temperature."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from distillspec.speculation.choose.chooser import Chooser
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.choose.fixed import Fixed
from distillspec.speculation.decoding.audit import Audit
from distillspec.speculation.decoding.observers import (
    ChooserFeedback,
    DecodedRound,
    Observers,
    RoundObserver,
    StopRuleFeedback,
)
from distillspec.speculation.draft.proposal import DraftContext, Proposal
from distillspec.speculation.limits import NO_TOKENS, prefill, up_to_end
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.records import Generation, Round, RoundRecord, TokenStatus
from distillspec.speculation.runner import Runner, room_after
from distillspec.speculation.sampling import SamplingPolicy, check_finite
from distillspec.speculation.verify.result import VerifyResult

__all__ = ["AutoregressiveDecoder", "Configuration", "SpeculativeDecoder"]


class SpeculativeDecoder:
    """Decodes one text at a time, with the distribution of the target under the policy.

    All runners have the same vocabulary and device; prompts live on that device too. A draft reads
    the prompt before the first round. When a later round chooses it, the draft first reads what was
    committed while others drafted, within the time of that round.
    """

    def __init__(
        self,
        target: Runner,
        draft: Runner | Mapping[str, Runner],
        way: Configuration | Chooser,
        policy: SamplingPolicy,
        random_source: RandomSource,
        *,
        audited: bool = False,
        observers: Sequence[RoundObserver] = (),
    ) -> None:
        """Make a decoder.

        Args:
            target: The model whose distribution the output has.
            draft: The draft model, or several by the names that configurations use for them.
            way: One configuration for every round, or the chooser of configurations.
            policy: What makes a distribution of logits, for target and drafts.
            random_source: The source of every random choice.
            audited: Whether records hold a `RoundAudit`. It costs time, which the times include.
            observers: Further ones, which come after those of stop rules and choosers.
        """
        self._target = target
        self._drafts: dict[str | None, Runner] = (
            {name: draft[name] for name in draft} if isinstance(draft, Mapping) else {None: draft}
        )
        same = (runner.vocab_size == target.vocab_size for runner in self._drafts.values())
        assert all(same), "target and draft differ in vocabulary"
        self._chooser = Fixed(way) if isinstance(way, Configuration) else way
        self._policy = self._draft_policy = policy
        self._random_source = random_source
        feedback = StopRuleFeedback(), ChooserFeedback(self._chooser, self._drafts, policy)
        self._observer = Observers(*feedback, *observers)
        if audited:
            audit = Audit(policy)
            self._draft_policy = audit.policy
            self._observer = Observers(*feedback, *observers, audit)

    def decode(
        self, prompt: Tensor, *, max_new_tokens: int, eos_token_ids: frozenset[int] = NO_TOKENS
    ) -> Generation:
        """Continue prompt, long [T], T >= 1, by at most max_new_tokens or up to an end token."""
        started = time.perf_counter()
        prefill(prompt, max_new_tokens, self._target, *self._drafts.values())
        ready = time.perf_counter()
        rounds = list(self.rounds_after(prompt, max_new_tokens, eos_token_ids))
        self._target.synchronize()
        done = time.perf_counter()
        return Generation.of_rounds(
            rounds, eos_token_ids, prefill_seconds=ready - started, decode_seconds=done - ready
        )

    def rounds(
        self, prompt: Tensor, *, max_new_tokens: int, eos_token_ids: frozenset[int] = NO_TOKENS
    ) -> Iterator[Round]:
        """`decode` as a stream: the tokens of each round, as soon as they are known."""
        prefill(prompt, max_new_tokens, self._target, *self._drafts.values())
        yield from self.rounds_after(prompt, max_new_tokens, eos_token_ids)

    def rounds_after(
        self, prompt: Tensor, max_new_tokens: int, eos_token_ids: frozenset[int] = NO_TOKENS
    ) -> Iterator[Round]:
        """Yield round after round until the text ends, with a prompt that the models have read.

        Before and between rounds the target's cache lacks the last committed token, the draft's one
        or two. So each model reads each committed token once, at the head of a later block. A draft
        that other drafts replace for some rounds reads what it missed at the head of its next
        block.
        """
        self._chooser.begin()
        text = prompt.tolist()
        limit = len(text) + max_new_tokens
        is_finished = False
        while len(text) < limit and not is_finished:
            # 1. Choose the configuration of the round. Near a limit its blocks are shorter.
            began = time.perf_counter()
            configuration = self._chooser.choose()
            draft = self._drafts.get(configuration.model)
            gamma = self._gamma(configuration, draft, text)
            head = prompt.new_tensor(text[-1:])
            self._observer.round_started(began)

            # 2. Draft at most gamma tokens, and keep the q that each was drawn from.
            context = self._context(configuration, draft, text, head)
            proposal = configuration.draft.propose(context, gamma)
            self._observer.drafted(draft)

            # 3. Verify: one forward of the target gives p after the head and each drafted token.
            p = self._policy.distribution(proposal.score(self._target, head))
            result = self._verify(configuration, proposal, p)

            # 4. Commit what was kept, and the target's own token after it, to caches and text.
            proposal.commit(self._target, draft, len(text), result)
            self._observer.verified(self._target)
            # An end token or the limit may cut tokens that the caches hold. No round follows then.
            room = limit - len(text)
            tokens, is_finished = up_to_end(result.tokens[:room], eos_token_ids)
            text += tokens

            decoded = DecodedRound(
                configuration, gamma, proposal, p, result, text, len(tokens), room
            )
            record = self._observer.committed(decoded, decoded.record())
            yield Round(tokens, decoded.statuses(), record)

    def _context(
        self, configuration: Configuration, draft: Runner | None, text: list[int], head: Tensor
    ) -> DraftContext:
        return DraftContext(
            text=text,
            head=head,
            model=draft,
            vocab_size=self._target.vocab_size,
            policy=self._draft_policy,
            random_source=self._random_source,
            stop=configuration.stop,
        )

    def _verify(self, configuration: Configuration, proposal: Proposal, p: Tensor) -> VerifyResult:
        """What the rule keeps of the proposal; an error if p or q is no distribution.

        On a CPU the check comes first. On other devices it comes after verification, which has
        waited for the device already.
        """
        sums = p[..., 0].sum(), proposal.q[..., 0].sum()
        if p.is_cpu:
            _check(*sums, configuration.model)
        result = proposal.verify(configuration.verify, p, self._random_source)
        if not p.is_cpu:
            _check(*sums, configuration.model)
        return result

    def _gamma(
        self, configuration: Configuration, draft: Runner | None, text: Sequence[int]
    ) -> int:
        """The configuration's gamma, or less where a model's limit is near.

        Shapes stay fixed wherever they fit. It is 0 where the draft has no room for the tokens that
        it has not read yet: the target then goes on without it.
        """
        slots = self._target.capacity - len(text)
        positions = self._target.positions - len(text)
        if draft is not None:  # the draft does not read the last token that it draws
            room = room_after(draft, text[draft.length :])
            slots, positions = min(slots, room.slots + 1), min(positions, room.positions + 1)
        gamma = max(0, min(configuration.gamma, positions))
        # Several sequences take more slots than positions.
        while gamma and configuration.draft.slots(gamma) > slots:
            gamma -= 1
        return gamma


class AutoregressiveDecoder:
    """The baseline: one target forward per token."""

    def __init__(self, target: Runner, policy: SamplingPolicy, random_source: RandomSource) -> None:
        self._target = target
        self._policy = policy
        self._random_source = random_source

    def decode(
        self, prompt: Tensor, *, max_new_tokens: int, eos_token_ids: frozenset[int] = NO_TOKENS
    ) -> Generation:
        """Continue prompt, long [T], T >= 1, by at most max_new_tokens or up to an end token.

        Without end tokens the host waits for the device only once, at the end.
        """
        started = time.perf_counter()
        prefill(prompt, max_new_tokens, self._target)
        ready = time.perf_counter()
        drawn: list[Tensor] = []
        # Doubts add up on the device, so that one check at the end is enough.
        doubts = torch.zeros((), device=prompt.device)
        token = prompt[-1]
        is_finished = False
        while len(drawn) < max_new_tokens and not is_finished:
            logits = self._target.feed(token.view(1, 1))[0, -1]
            token, doubt = self._policy.draw_with_doubt(logits, self._random_source)
            doubts = doubts + doubt
            drawn.append(token)
            is_finished = bool(eos_token_ids) and int(token) in eos_token_ids
        tokens = torch.stack(drawn).tolist() if drawn else []
        self._target.synchronize()
        done = time.perf_counter()
        check_finite("the target", doubts)
        plain = RoundRecord(drafted=0, accepted=0, emitted=1, draft_steps=0, cut=False)
        return Generation(
            tokens=tokens,
            statuses=[TokenStatus.PLAIN] * len(tokens),
            rounds=[plain] * len(tokens),
            prefill_seconds=ready - started,
            decode_seconds=done - ready,
            finished=is_finished,
        )


def _check(p: Tensor, q: Tensor, draft: str | None) -> None:
    check_finite("the target", p)
    check_finite("the draft" if draft is None else f"the draft {draft!r}", q)

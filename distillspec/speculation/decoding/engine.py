"""The loop: choose, draft, verify, commit. It knows no rule by name."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from distillspec.speculation.choose.chooser import Chooser, RoundOutcome
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.choose.fixed import Fixed
from distillspec.speculation.decoding.audit import Watch
from distillspec.speculation.draft.proposal import DraftContext, Proposal
from distillspec.speculation.limits import NO_TOKENS, prefill, up_to_end
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.records import Generation, Round, RoundRecord, TokenStatus
from distillspec.speculation.runner import Runner, room_after
from distillspec.speculation.sampling import SamplingPolicy, check_finite
from distillspec.speculation.trajectory import watch
from distillspec.speculation.verify.result import VerifyResult

__all__ = ["AutoregressiveDecoder", "Configuration", "SpeculativeDecoder"]


class SpeculativeDecoder:
    """Decodes one text at a time, with the distribution of the target under the policy.

    All runners have the same vocabulary and device; prompts live on that device too. draft: the one
    that drafts, or several by the names that configurations know them by: each reads the prompt
    beforehand, and all that was committed while others drafted when its turn comes, within the time
    of that round. way: one configuration for every round, or what chooses one. audited: records
    tell of every round who drafted, how unsure and how long; that takes time, which the times
    include.
    """

    def __init__(
        self,
        target: Runner,
        draft: Runner | Mapping[str, Runner],
        way: Configuration | Chooser,
        policy: SamplingPolicy,
        chance: RandomSource,
        *,
        audited: bool = False,
    ) -> None:
        self._target = target
        self._drafts: dict[str | None, Runner] = (
            {name: draft[name] for name in draft} if isinstance(draft, Mapping) else {None: draft}
        )
        same = (one.vocab_size == target.vocab_size for one in self._drafts.values())
        assert all(same), "target and draft differ in vocabulary"
        self._chooser = Fixed(way) if isinstance(way, Configuration) else way
        self._policy = policy
        self._chance = chance
        self._audited = audited

    def decode(
        self, prompt: Tensor, *, max_new_tokens: int, eos_token_ids: frozenset[int] = NO_TOKENS
    ) -> Generation:
        """Continue prompt, long [T], T >= 1, by at most max_new_tokens or up to an end token."""
        started = time.perf_counter()
        prefill(prompt, max_new_tokens, self._target, *self._drafts.values())
        ready = time.perf_counter()
        rounds = list(self._rounds(prompt, max_new_tokens, eos_token_ids))
        self._target.synchronize()
        done = time.perf_counter()
        return Generation.of_rounds(
            rounds, eos_token_ids, prefill_seconds=ready - started, decode_seconds=done - ready
        )

    def rounds(
        self, prompt: Tensor, *, max_new_tokens: int, eos_token_ids: frozenset[int] = NO_TOKENS
    ) -> Iterator[Round]:
        """`decode` as a stream: what each round adds, as soon as it is known."""
        prefill(prompt, max_new_tokens, self._target, *self._drafts.values())
        yield from self._rounds(prompt, max_new_tokens, eos_token_ids)

    def _rounds(
        self, prompt: Tensor, max_new_tokens: int, eos_token_ids: frozenset[int]
    ) -> Iterator[Round]:
        """Between rounds the target's cache lacks the last committed token, the draft's one or two.

        So each committed token is fed to each model once, at the head of a later block; to a draft
        that rests, at the head of the next block which is its own.
        """
        self._chooser.begin()
        committed = prompt.tolist()
        limit = len(committed) + max_new_tokens
        is_finished = False
        while len(committed) < limit and not is_finished:
            began = time.perf_counter()
            configuration = self._chooser.choose()
            draft = self._drafts.get(configuration.model)
            gamma = self._gamma(configuration, draft, committed)
            head = prompt.new_tensor(committed[-1:])
            auditor = Watch(self._policy) if self._audited else None
            basis = DraftContext(
                text=committed,
                head=head,
                model=draft,
                vocab_size=self._target.vocab_size,
                policy=auditor.policy if auditor else self._policy,
                chance=self._chance,
                stop=configuration.stop,
            )
            proposal = configuration.draft.propose(basis, gamma)
            if auditor:
                auditor.drafted(draft)
            p = self._policy.distribution(proposal.score(self._target, head))
            doubts = p[..., 0].sum(), proposal.q[..., 0].sum()
            if p.is_cpu:
                _check(*doubts, configuration.model)
            verdict = proposal.verify(configuration.verify, p, self._chance)
            if not p.is_cpu:  # the device has been waited for
                _check(*doubts, configuration.model)
            proposal.commit(self._target, draft, len(committed), verdict)
            if auditor:
                auditor.verified(self._target)
            configuration.stop.learn(proposal.length, verdict.accepted, gamma)

            room = limit - len(committed)
            tokens, is_finished = up_to_end(verdict.tokens[:room], eos_token_ids)
            committed += tokens
            fresh = len(tokens)
            watched = watch(
                self._chooser.watches,
                self._drafts,
                committed,
                p[:fresh],
                proposal.q,
                self._policy,
            )
            self._chooser.learn(
                RoundOutcome(
                    tokens=len(verdict.tokens),
                    seconds=time.perf_counter() - began,
                    text=committed,
                    fresh=fresh,
                    chances=watched.chances,
                )
            )
            yield Round(
                tokens,
                _fates(proposal, verdict)[: len(tokens)],
                RoundRecord(
                    drafted=proposal.drafted,
                    accepted=verdict.accepted,
                    emitted=len(tokens),
                    draft_steps=proposal.steps + watched.forwards,
                    cut=(
                        len(tokens) < len(verdict.tokens)
                        or room <= configuration.gamma
                        or gamma < configuration.gamma
                    ),
                    audit=auditor.audit(configuration, began) if auditor else None,
                ),
            )

    def _gamma(
        self, configuration: Configuration, draft: Runner | None, committed: Sequence[int]
    ) -> int:
        """Its gamma, or less where a model's limit is near: shapes stay fixed wherever they fit.

        0 where the draft has no room for what it has not read yet: it rests from there on.
        """
        slots = self._target.capacity - len(committed)
        positions = self._target.positions - len(committed)
        if draft is not None:  # it is not fed the last token that it draws
            room = room_after(draft, committed[draft.length :])
            slots, positions = min(slots, room.slots + 1), min(positions, room.positions + 1)
        gamma = max(0, min(configuration.gamma, positions))
        while gamma and configuration.draft.slots(gamma) > slots:
            gamma -= 1
        return gamma


class AutoregressiveDecoder:
    """The baseline: one target forward a token."""

    def __init__(self, target: Runner, policy: SamplingPolicy, chance: RandomSource) -> None:
        self._target = target
        self._policy = policy
        self._chance = chance

    def decode(
        self, prompt: Tensor, *, max_new_tokens: int, eos_token_ids: frozenset[int] = NO_TOKENS
    ) -> Generation:
        """Continue prompt, long [T], T >= 1, by at most max_new_tokens or up to an end token.

        Without end tokens nothing is copied to the host before the end.
        """
        started = time.perf_counter()
        prefill(prompt, max_new_tokens, self._target)
        ready = time.perf_counter()
        drawn: list[Tensor] = []
        doubts = torch.zeros((), device=prompt.device)
        token = prompt[-1]
        is_finished = False
        while len(drawn) < max_new_tokens and not is_finished:
            logits = self._target.feed(token.view(1, 1))[0, -1]
            token, doubt = self._policy.draw_with_doubt(logits, self._chance)
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
            fates=[TokenStatus.PLAIN] * len(tokens),
            rounds=[plain] * len(tokens),
            prefill_seconds=ready - started,
            decode_seconds=done - ready,
            finished=is_finished,
        )


def _check(p: Tensor, q: Tensor, draft: str | None) -> None:
    check_finite("the target", p)
    check_finite("the draft" if draft is None else f"the draft {draft!r}", q)


def _fates(proposal: Proposal, verdict: VerifyResult) -> list[TokenStatus]:
    if proposal.drafted == 0:
        return [TokenStatus.PLAIN]
    last = TokenStatus.BONUS if proposal.is_whole(verdict) else TokenStatus.CORRECTED
    return [TokenStatus.ACCEPTED] * verdict.accepted + [last]

"""The loop: choose, draft, verify, commit. It knows no rule by name."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from distillspec.speculation.audit import Watch
from distillspec.speculation.chance import Chance
from distillspec.speculation.choose.chooser import Chooser
from distillspec.speculation.choose.fixed import Fixed
from distillspec.speculation.configuration import Configuration
from distillspec.speculation.draft.proposal import Proposal
from distillspec.speculation.limits import NO_TOKENS, prefill, up_to_end
from distillspec.speculation.records import Fate, Generation, Round, RoundRecord
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.verdict import Verdict

__all__ = ["AutoregressiveDecoder", "Configuration", "SpeculativeDecoder"]


class SpeculativeDecoder:
    """Decodes one text at a time, with the law of the target under the policy.

    Both runners have the same vocabulary and device; prompts live on that device too. way: one
    configuration for every round, or what chooses one. audited: records tell of every round who
    drafted, how unsure and how long; that takes time, which the times include.
    """

    def __init__(
        self,
        target: Runner,
        draft: Runner,
        way: Configuration | Chooser,
        policy: SamplingPolicy,
        chance: Chance,
        *,
        audited: bool = False,
    ) -> None:
        assert target.vocabulary == draft.vocabulary, "target and draft differ in vocabulary"
        self._target = target
        self._draft = draft
        self._chooser = Fixed(way) if isinstance(way, Configuration) else way
        self._policy = policy
        self._chance = chance
        self._audited = audited

    def decode(
        self, prompt: Tensor, *, max_new_tokens: int, end_tokens: frozenset[int] = NO_TOKENS
    ) -> Generation:
        """Continue prompt, long [T], T >= 1, by at most max_new_tokens or up to an end token."""
        started = time.perf_counter()
        prefill(prompt, max_new_tokens, self._target, self._draft)
        ready = time.perf_counter()
        rounds = list(self._rounds(prompt, max_new_tokens, end_tokens))
        self._target.synchronize()
        done = time.perf_counter()
        return Generation.of_rounds(
            rounds, end_tokens, prefill_seconds=ready - started, decode_seconds=done - ready
        )

    def rounds(
        self, prompt: Tensor, *, max_new_tokens: int, end_tokens: frozenset[int] = NO_TOKENS
    ) -> Iterator[Round]:
        """`decode` as a stream: what each round adds, as soon as it is known."""
        prefill(prompt, max_new_tokens, self._target, self._draft)
        yield from self._rounds(prompt, max_new_tokens, end_tokens)

    def _rounds(
        self, prompt: Tensor, max_new_tokens: int, end_tokens: frozenset[int]
    ) -> Iterator[Round]:
        """Between rounds the target's cache lacks the last committed token, the draft's one or two.

        So each committed token is fed to each model once, at the head of a later block.
        """
        committed = prompt.tolist()
        limit = len(committed) + max_new_tokens
        is_finished = False
        while len(committed) < limit and not is_finished:
            began = time.perf_counter()
            configuration = self._chooser.choose()
            gamma = self._gamma(configuration, len(committed))
            pending = prompt.new_tensor(committed[self._draft.length :])
            watch = Watch(self._policy) if self._audited else None
            proposal = configuration.draft.propose(
                self._draft,
                pending,
                gamma,
                watch.policy if watch else self._policy,
                self._chance,
                configuration.stop,
            )
            if watch:
                watch.drafted(self._draft)
            p = self._policy.distribution(proposal.score(self._target, pending[-1:]))
            verdict = proposal.judge(configuration.verify, p, self._chance)
            proposal.keep(self._target, self._draft, len(committed), verdict)
            if watch:
                watch.verified(self._target)
            configuration.stop.learn(proposal.length, verdict.accepted, gamma)

            room = limit - len(committed)
            tokens, is_finished = up_to_end(verdict.tokens[:room], end_tokens)
            committed += tokens
            self._chooser.learn(len(verdict.tokens), time.perf_counter() - began)
            yield Round(
                tokens,
                _fates(proposal, verdict)[: len(tokens)],
                RoundRecord(
                    drafted=proposal.drafted,
                    accepted=verdict.accepted,
                    emitted=len(tokens),
                    draft_steps=proposal.steps,
                    cut=len(tokens) < len(verdict.tokens) or room <= configuration.gamma,
                    audit=watch.audit(configuration, began) if watch else None,
                ),
            )

    def _gamma(self, configuration: Configuration, committed: int) -> int:
        """Its gamma, or less where a cache is nearly full: shapes stay fixed wherever they fit."""
        free = min(self._target.capacity - committed, self._draft.capacity - committed + 1)
        gamma = configuration.gamma
        while gamma and configuration.draft.slots(gamma) > free:
            gamma -= 1
        return gamma


class AutoregressiveDecoder:
    """The baseline: one target forward a token."""

    def __init__(self, target: Runner, policy: SamplingPolicy, chance: Chance) -> None:
        self._target = target
        self._policy = policy
        self._chance = chance

    def decode(
        self, prompt: Tensor, *, max_new_tokens: int, end_tokens: frozenset[int] = NO_TOKENS
    ) -> Generation:
        """Continue prompt, long [T], T >= 1, by at most max_new_tokens or up to an end token.

        Without end tokens nothing is copied to the host before the end.
        """
        started = time.perf_counter()
        prefill(prompt, max_new_tokens, self._target)
        ready = time.perf_counter()
        drawn: list[Tensor] = []
        token = prompt[-1]
        is_finished = False
        while len(drawn) < max_new_tokens and not is_finished:
            logits = self._target.feed(token.view(1, 1))[0, -1]
            token = self._policy.draw(logits, self._chance)
            drawn.append(token)
            is_finished = bool(end_tokens) and int(token) in end_tokens
        tokens = torch.stack(drawn).tolist() if drawn else []
        self._target.synchronize()
        done = time.perf_counter()
        plain = RoundRecord(drafted=0, accepted=0, emitted=1, draft_steps=0, cut=False)
        return Generation(
            tokens=tokens,
            fates=[Fate.PLAIN] * len(tokens),
            rounds=[plain] * len(tokens),
            prefill_seconds=ready - started,
            decode_seconds=done - ready,
            finished=is_finished,
        )


def _fates(proposal: Proposal, verdict: Verdict) -> list[Fate]:
    if proposal.drafted == 0:
        return [Fate.PLAIN]
    last = Fate.BONUS if proposal.is_whole(verdict) else Fate.CORRECTED
    return [Fate.ACCEPTED] * verdict.accepted + [last]

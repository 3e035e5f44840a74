"""The rounds of batched speculative sampling: draft, verify and keep, for all rows at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.divergence.head import OutputHead
from distillspec.models.sampling.forward import Forward
from distillspec.models.sampling.masked_reader import MaskedReader
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.sampling import SamplingPolicy, check_finite
from distillspec.speculation.verify.token import verify_token_rows

_DONE_SHARE = 0.125  # finished rows leave once they are this share of the batch


class SpeculatedRound(NamedTuple):
    """One round of B rows, including rows that have already ended.

    Attributes:
        start: Long [B], tokens of the response before the round.
        took_part: Bool [B].
        drafted: Long [B, G].
        acceptance: Shape [B, G], min(1, p/q).
        kept: Long [B], number of accepted tokens.
        following: Long [B], the token after the accepted ones.
        states: Shape [B, G + 1, H], the target's hidden states, or None.
    """

    start: Tensor
    took_part: Tensor
    drafted: Tensor
    acceptance: Tensor
    kept: Tensor
    following: Tensor
    states: Tensor | None

    def on_cpu(self) -> SpeculatedRound:
        states = None if self.states is None else self.states.cpu()
        start, took_part, drafted, acceptance, kept, following = (
            field.cpu() for field in self[:-1]
        )
        return SpeculatedRound(start, took_part, drafted, acceptance, kept, following, states)


class SpeculativeRounds:
    """The rounds of one batch of prompts, sorted by length."""

    def __init__(
        self,
        target: Forward,
        draft: Forward,
        head: OutputHead | None,
        prompts: list[Tensor],
        gamma: int,
        policy: SamplingPolicy,
        random_source: RandomSource,
        vocab_size: int | None,
    ) -> None:
        self._head, self._gamma, self._vocab_size = head, gamma, vocab_size
        self._policy, self._random_source = policy, random_source
        self._count = len(prompts)
        texts = [prompt[:-1] for prompt in prompts]
        self._target, self._draft = MaskedReader(target, texts), MaskedReader(draft, texts)
        self._last = torch.stack([prompt[-1] for prompt in prompts])
        self._before_last = torch.zeros_like(self._last)
        self._is_unread = torch.zeros_like(self._last, dtype=torch.bool)  # by the draft
        self._records: list[SpeculatedRound] = []
        nothing = torch.zeros((), device=self._last.device)
        self._doubts = nothing, nothing  # of the target, of the draft

    def run(self, max_new_tokens: int, ends: Tensor) -> None:
        """Run rounds until every row has ended or has all its tokens."""
        rows = torch.arange(self._count, device=self._last.device)
        written = torch.zeros_like(self._last)
        done = torch.zeros_like(self._is_unread)
        while len(rows):
            drafted, kept, following = self._round(rows, written, done)
            # 1. Emit the drafted tokens, with `following` in place of the first rejected one.
            emitted = torch.cat([drafted, following[:, None]], 1)
            emitted.scatter_(1, kept[:, None], following[:, None])
            is_emitted = torch.arange(self._gamma + 1, device=rows.device) <= kept[:, None]
            written = written + kept + 1
            # 2. Find the rows that have ended.
            done |= (torch.isin(emitted, ends) & is_emitted).any(1) | (written >= max_new_tokens)
            left = len(rows) - int(done.sum())  # one wait for the device per round
            if not left:
                check_finite("the target", self._doubts[0])
                check_finite("the draft", self._doubts[1])
                return
            # 3. Removing rows copies the caches, so several leave together.
            if left <= len(rows) * (1 - _DONE_SHARE):
                stay = (~done).nonzero()[:, 0]
                rows, written, done = rows[stay], written[stay], done[stay]
                self._keep_rows(stay)

    def _round(self, rows: Tensor, written: Tensor, done: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Drafted tokens, long [B, G], how many are accepted, and the next token, long [B]."""
        # 1. Draft, then score all drafted tokens in one forward of the target.
        goes_on = ~done
        drafted, q = self._drafts(goes_on)
        inputs = torch.cat([self._last[:, None], drafted], 1)
        p, states = self._distributions(inputs, goes_on)
        # 2. One sum per model turns NaN if any distribution was. It is read at the end only.
        counts = goes_on[:, None]  # the logits of finished rows may be anything
        self._doubts = (
            self._doubts[0] + p[..., 0].where(counts, 0.0).sum(),
            self._doubts[1] + q[..., 0].where(counts, 0.0).sum(),
        )
        # 3. Verify, and hide the rejected tokens from both caches.
        kept, following, acceptance = verify_token_rows(p, q, drafted, self._random_source)
        is_kept = torch.arange(self._gamma, device=rows.device) < kept[:, None]
        self._target.hide(~is_kept)
        # The draft has not read its last token, so its cache has one column less.
        if self._gamma > 1:
            self._draft.hide(~is_kept[:, :-1])
        self._before_last, self._last = drafted[:, -1], following
        self._is_unread = is_kept[:, -1] & goes_on
        self._record(
            rows, SpeculatedRound(written, goes_on, drafted, acceptance, kept, following, states)
        )
        return drafted, kept, following

    def _drafts(self, goes_on: Tensor) -> tuple[Tensor, Tensor]:
        """Drafted tokens, long [B, G], and the distributions they were drawn from, [B, G, V].

        If a round accepted all tokens, the draft has not read the last one yet. It reads it now.
        """
        inputs = torch.stack([self._before_last, self._last], 1)
        is_text = torch.stack([self._is_unread, goes_on], 1)
        tokens, distributions = [], []
        for _ in range(self._gamma):
            logits = self._draft.last_logits(inputs, is_text)[:, : self._vocab_size]
            token, distribution = self._policy.draw_with_distribution(logits, self._random_source)
            tokens.append(token)
            distributions.append(distribution)
            inputs, is_text = token[:, None], goes_on[:, None]
        return torch.stack(tokens, 1), torch.stack(distributions, 1)

    def _distributions(self, inputs: Tensor, goes_on: Tensor) -> tuple[Tensor, Tensor | None]:
        """Distributions after each input, [B, G + 1, V], and the hidden states there."""
        is_text = goes_on[:, None].expand(inputs.shape)
        if self._head is None:
            logits = self._target.logits(inputs, is_text)[..., : self._vocab_size]
            return self._policy.distribution(logits), None
        states = self._target.states(inputs, is_text)
        return self._policy.distribution(self._head.logits(states)), states

    def _record(self, rows: Tensor, record: SpeculatedRound) -> None:
        def all_rows(part: Tensor | None) -> Tensor | None:
            if part is None or len(rows) == self._count:
                return part
            # Rows that left before get zeros; `took_part` is False for them.
            return part.new_zeros(self._count, *part.shape[1:]).index_copy_(0, rows, part)

        self._records.append(SpeculatedRound(*map(all_rows, record)))  # type: ignore[arg-type]

    def _keep_rows(self, rows: Tensor) -> None:
        self._target.keep_rows(rows)
        self._draft.keep_rows(rows)
        self._last, self._before_last = self._last[rows], self._before_last[rows]
        self._is_unread = self._is_unread[rows]

    def records(self) -> list[SpeculatedRound]:
        """The rounds that were run, in order, on the CPU."""
        return [record.on_cpu() for record in self._records]

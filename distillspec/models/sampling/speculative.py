"""Batched sampling from a target by speculative decoding with a draft: rollout of many rows.

Exactly the target's distribution. All rows share each forward; each keeps as much of its draft as
it may. Caches are not cut per row: columns of rejected tokens are hidden from the row by its mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distillspec.divergence.head import OutputHead
from distillspec.models.bare import bare_model
from distillspec.models.runners.cache import additive_mask
from distillspec.models.runners.tree_mask import check_takes_a_tree
from distillspec.models.sampling.forward import Forward, forward_of, read_prompts
from distillspec.models.surgery.hidden_states import output_head
from distillspec.speculation.chance import RandomSource
from distillspec.speculation.sampling import SamplingPolicy, check_finite
from distillspec.speculation.verify.token import verify_token_rows

_MOST_HIDDEN = 64  # columns that no row sees; then the caches are tidied, which costs a copy
_DONE_SHARE = 0.125  # finished rows leave once they are this share of the batch


class DraftedBlock(NamedTuple):
    """What was drafted for one text in one round, on the CPU."""

    start: int
    """tokens of the response before it"""
    drafted: Tensor
    """long [G]"""
    acceptance: Tensor
    """[G], min(1, p/q) of each, given those before it"""
    kept: int
    states: Tensor | None
    """[G + 1, H]: the target's hidden states from which each drafted token, and the one after the
    last, was predicted"""


class SpeculatedText(NamedTuple):
    """A response of the target's distribution, and what verifying it has told; on the CPU."""

    response: Tensor
    """long [t], end token included"""
    states: Tensor | None
    """[t, H]: the target's hidden states that each token was drawn from; None where its head is
    not all that follows them"""
    blocks: list[DraftedBlock]
    """the rounds that wrote it; the last one may go beyond its end"""


@torch.no_grad()
def generate_speculatively(
    target: nn.Module,
    draft: nn.Module,
    prompts: Sequence[Tensor],
    *,
    gamma: int,
    max_new_tokens: int,
    policy: SamplingPolicy,
    chance: RandomSource,
    eos_token_ids: frozenset[int],
    vocab_size: int | None = None,
    batch_rows: int = 64,
) -> list[SpeculatedText]:
    """Draw one response of the target per prompt (long [t], not empty), in the given order.

    gamma: tokens drafted a round. The models run in eval mode and are left in the modes they were
    in. vocab_size: logits are trimmed to this many tokens. Errors: DistillSpecError for a model
    whose attention takes no mask of ours (sliding windows, flash kernels).
    """
    assert all(len(prompt) for prompt in prompts), "an empty prompt has no next token"
    for model in (target, draft):
        check_takes_a_tree(bare_model(model))
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    texts: dict[int, SpeculatedText] = {}
    with forward_of(target) as big, forward_of(draft) as small:
        head = output_head(target, vocab_size)
        ends = torch.tensor(sorted(eos_token_ids), dtype=torch.long, device=big.device)
        for start in range(0, len(order), batch_rows):
            places = order[start : start + batch_rows]
            rows = [prompts[place].to(big.device) for place in places]
            found = _Rounds(big, small, head, rows, gamma, policy, chance, vocab_size)
            found.run(max_new_tokens, ends)
            texts |= zip(places, found.texts(max_new_tokens, ends.cpu()), strict=True)
    return [texts[place] for place in range(len(prompts))]


class _Told(NamedTuple):
    """One round of B rows, whether or not they still take part."""

    start: Tensor  # long [B], tokens before it
    took_part: Tensor  # bool [B]
    drafted: Tensor  # long [B, G]
    acceptance: Tensor  # [B, G]
    kept: Tensor  # long [B]
    following: Tensor  # long [B]
    states: Tensor | None  # [B, G + 1, H]

    def on_cpu(self) -> _Told:
        states = None if self.states is None else self.states.cpu()
        start, took_part, drafted, acceptance, kept, following = (p.cpu() for p in self[:-1])
        return _Told(start, took_part, drafted, acceptance, kept, following, states)


class _Rounds:
    """The rounds of one batch of prompts, sorted by length."""

    def __init__(
        self,
        target: Forward,
        draft: Forward,
        head: OutputHead | None,
        prompts: list[Tensor],
        gamma: int,
        policy: SamplingPolicy,
        chance: RandomSource,
        vocab_size: int | None,
    ) -> None:
        self._head, self._gamma, self._vocab_size = head, gamma, vocab_size
        self._policy, self._chance = policy, chance
        self._count = len(prompts)
        texts = [prompt[:-1] for prompt in prompts]
        self._target, self._draft = _Reader(target, texts), _Reader(draft, texts)
        self._last = torch.stack([prompt[-1] for prompt in prompts])
        self._before_last = torch.zeros_like(self._last)
        self._is_unread = torch.zeros_like(self._last, dtype=torch.bool)  # by the draft
        self._told: list[_Told] = []
        nothing = torch.zeros((), device=self._last.device)
        self._doubts = nothing, nothing  # of the target, of the draft

    def run(self, max_new_tokens: int, ends: Tensor) -> None:
        """Round after round, until every row has ended or has all its tokens."""
        rows = torch.arange(self._count, device=self._last.device)
        written = torch.zeros_like(self._last)
        done = torch.zeros_like(self._is_unread)
        while len(rows):
            drafted, kept, following = self._round(rows, written, done)
            emitted = torch.cat([drafted, following[:, None]], 1)
            emitted.scatter_(1, kept[:, None], following[:, None])
            is_emitted = torch.arange(self._gamma + 1, device=rows.device) <= kept[:, None]
            written = written + kept + 1
            done |= (torch.isin(emitted, ends) & is_emitted).any(1) | (written >= max_new_tokens)
            left = len(rows) - int(done.sum())  # once a round, which is several tokens
            if not left:
                check_finite("the target", self._doubts[0])
                check_finite("the draft", self._doubts[1])
                return
            if left <= len(rows) * (1 - _DONE_SHARE):
                stay = (~done).nonzero()[:, 0]
                rows, written, done = rows[stay], written[stay], done[stay]
                self._keep_rows(stay)

    def _round(self, rows: Tensor, written: Tensor, done: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Drafted long [B, G], how many of them are kept, and what follows these, long [B]."""
        goes_on = ~done
        drafted, q = self._drafts(goes_on)
        inputs = torch.cat([self._last[:, None], drafted], 1)
        p, states = self._distributions(inputs, goes_on)
        said = goes_on[:, None]  # what rows that have ended say is not asked for
        self._doubts = (
            self._doubts[0] + p[..., 0].where(said, 0.0).sum(),
            self._doubts[1] + q[..., 0].where(said, 0.0).sum(),
        )
        kept, following, acceptance = verify_token_rows(p, q, drafted, self._chance)
        is_kept = torch.arange(self._gamma, device=rows.device) < kept[:, None]
        self._target.hide(~is_kept)
        if self._gamma > 1:
            self._draft.hide(~is_kept[:, :-1])
        self._before_last, self._last = drafted[:, -1], following
        self._is_unread = is_kept[:, -1] & goes_on
        self._tell(rows, _Told(written, goes_on, drafted, acceptance, kept, following, states))
        return drafted, kept, following

    def _drafts(self, goes_on: Tensor) -> tuple[Tensor, Tensor]:
        """Drafted tokens, long [B, G], and the distributions they were drawn from, [B, G, V].

        Where all was kept, the draft has not read its last token yet: it does so now.
        """
        inputs = torch.stack([self._before_last, self._last], 1)
        is_text = torch.stack([self._is_unread, goes_on], 1)
        tokens, distributions = [], []
        for _ in range(self._gamma):
            logits = self._draft.last_logits(inputs, is_text)[:, : self._vocab_size]
            token, distribution = self._policy.draw_with_distribution(logits, self._chance)
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

    def _tell(self, rows: Tensor, told: _Told) -> None:
        def whole(part: Tensor | None) -> Tensor | None:
            if part is None or len(rows) == self._count:
                return part
            return part.new_zeros(self._count, *part.shape[1:]).index_copy_(0, rows, part)

        self._told.append(_Told(*map(whole, told)))  # type: ignore[arg-type]

    def _keep_rows(self, rows: Tensor) -> None:
        self._target.keep_rows(rows)
        self._draft.keep_rows(rows)
        self._last, self._before_last = self._last[rows], self._before_last[rows]
        self._is_unread = self._is_unread[rows]

    def texts(self, max_new_tokens: int, ends: Tensor) -> list[SpeculatedText]:
        """What each row has become."""
        told = [one.on_cpu() for one in self._told]
        texts = []
        for row in range(self._count):
            rounds = [one for one in told if one.took_part[row]]
            blocks = [
                DraftedBlock(
                    int(one.start[row]),
                    one.drafted[row],
                    one.acceptance[row],
                    int(one.kept[row]),
                    None if one.states is None else one.states[row],
                )
                for one in rounds
            ]
            emitted = [
                part
                for one, block in zip(rounds, blocks, strict=True)
                for part in (block.drafted[: block.kept], one.following[row : row + 1])
            ]
            tokens = torch.cat(emitted)[:max_new_tokens]
            is_end = torch.isin(tokens, ends)
            length = int(is_end.int().argmax()) + 1 if bool(is_end.any()) else len(tokens)
            seen = [block.states[: block.kept + 1] for block in blocks if block.states is not None]
            texts.append(
                SpeculatedText(
                    tokens[:length].clone(), torch.cat(seen)[:length] if seen else None, blocks
                )
            )
        return texts


class _Reader:
    """What one model has read of a batch: columns of its cache, and which of them a row sees."""

    def __init__(self, forward: Forward, texts: list[Tensor]) -> None:
        self._forward = forward
        self._cache = read_prompts(forward, texts, 4 * _MOST_HIDDEN)
        lengths = torch.tensor([len(text) for text in texts], device=forward.device)
        columns = torch.arange(len(texts[-1]), device=forward.device)
        self._sees = columns >= len(texts[-1]) - lengths[:, None]  # bool [B, columns]
        self._tidied_at = len(columns) + 2 * _MOST_HIDDEN  # columns then

    def last_logits(self, tokens: Tensor, is_text: Tensor) -> Tensor:
        """Read long [B, n] -> logits [B, V] after the last; later tokens see those of `is_text`."""
        return self._forward(tokens, self._cache, *self._added(is_text))

    def logits(self, tokens: Tensor, is_text: Tensor) -> Tensor:
        """The same after each, [B, n, V]."""
        return self._forward.logits(tokens, self._cache, *self._added(is_text))

    def states(self, tokens: Tensor, is_text: Tensor) -> Tensor:
        """Hidden states in their place, [B, n, H]."""
        return self._forward.states(tokens, self._cache, *self._added(is_text))

    def _added(self, is_text: Tensor) -> tuple[Tensor, Tensor]:
        """Mask [B, 1, n, columns + n] and positions [B, n] of n further columns."""
        self._tidy()
        new = is_text.shape[1]
        before = self._sees.sum(1, keepdim=True)
        positions = (before + is_text.cumsum(1) - 1).clamp_(min=0)
        own = torch.eye(new, dtype=torch.bool, device=is_text.device)
        within = is_text[:, None, :] & own.new_ones(new, new).tril_()
        sees = torch.cat([self._sees[:, None].expand(-1, new, -1), within | own], 2)
        self._sees = torch.cat([self._sees, is_text], 1)
        return additive_mask(sees, self._forward.dtype)[:, None], positions

    def hide(self, columns: Tensor) -> None:
        """Of the last columns, bool [B, n], those that no later token sees."""
        self._sees[:, -columns.shape[1] :] &= ~columns

    def keep_rows(self, rows: Tensor) -> None:
        """Go on with these rows only, long [B']."""
        self._cache.keep_rows(rows)
        self._sees = self._sees[rows]

    def _tidy(self) -> None:
        """Once many columns are hidden from all rows, move what is seen together."""
        held = self._sees.shape[1]
        if held < self._tidied_at:
            return
        longest = int(self._sees.sum(1).max())
        self._tidied_at = held + _MOST_HIDDEN
        if held - longest > _MOST_HIDDEN:
            order = self._sees.int().argsort(dim=1, stable=True)[:, held - longest :]
            self._cache.keep_columns(order)
            self._sees = self._sees.gather(1, order)
            self._tidied_at = longest + 2 * _MOST_HIDDEN

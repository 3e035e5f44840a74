"""What a step minimises: losses at the response tokens of a batch, summed.

Callable without a trainer. Sums come out, nothing is divided here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from distillspec.corpus.batches.batching import Batch
from distillspec.divergence.block_efficiency import block_worth
from distillspec.divergence.reduction import DivergenceSums
from distillspec.divergence.table import DIVERGENCES, DivergenceSettings, divergence, mixture
from distillspec.models.bare import bare_model
from distillspec.models.surgery.frozen import FrozenTarget
from distillspec.models.surgery.hidden import Layout, hidden_states, output_head, token_logits
from distillspec.models.vocabulary.cross_tokenizer import bridge_of
from distillspec.models.vocabulary.trimmed_head import kept_tokens
from distillspec.recipe.distill import DistillConfig
from distillspec.training.cached_target import CachedTopKTarget
from distillspec.training.emphasis import StepStatistics, TokenWeights
from distillspec.training.sides import CachedTopK, LossInputs


def predicts_response(batch: Batch) -> Tensor:
    """Positions whose next token belongs to a response: bool [B, T].

    The one place of the shift: a causal model's output at position t is its distribution of token t
    + 1, so the first response token is predicted at the prompt's last position, and the last
    position of a row predicts nothing we know. Rows that are trees bring these positions with them.
    """
    if batch.tree is not None:
        return batch.tree.predicts
    predicts = torch.zeros_like(batch.is_response)
    predicts[:, :-1] = batch.is_response[:, 1:]
    return predicts


def texts_of(batch: Batch) -> Tensor:
    """Tokens in the loss of each text, in the order of the N: long [texts]."""
    return predicts_response(batch).sum(1) if batch.tree is None else batch.tree.lengths


def token_weights(batch: Batch, reduction: str) -> Tensor:
    """Weight of each predicted token in row-major order: [N], whose sum is what the loss is over.

    "tokens": 1 each, so the sum counts tokens. "sequences": 1 / length of its response, so the sum
    counts sequences. Rows that are trees have weights of their own. Divide the loss by the sum over
    all micro-batches and processes of a step.
    """
    predicts = predicts_response(batch)
    if batch.tree is not None:
        return batch.tree.weights[predicts]
    if reduction == "tokens":
        return torch.ones(int(predicts.sum()), device=predicts.device)
    lengths = predicts.sum(dim=1, keepdim=True).clamp(min=1)
    return (1.0 / lengths).expand_as(predicts)[predicts]


class Objective:
    """The losses of a recipe, weighted and added up.

    Where both heads are plain matrices, hidden states are kept and projected chunk by chunk. Else
    (a head that does more, LoRA on it, weights sharded over processes) the models make their own
    logits, and only the maths goes in chunks. Unequal vocabularies are trimmed to the common rows.
    Where the draft scores a part of the vocabulary, for its trimmed head or its own tokenizer, p is
    the target's distribution given that part: its best draft is one of those that lose nothing but
    the mass that they must. Tokens outside of it weigh nothing in `nll`, though they count in what
    the loss is divided by.

    Divergences of single tokens are one pass, whatever their mixture. The others are passes of
    their own over the same hidden states: `nll` and `tvd_plus`, which are of the text's tokens, and
    `block_efficiency`, whose tokens weigh what their neighbours make of them.
    """

    def __init__(
        self,
        distill: DistillConfig,
        target: FrozenTarget | None,
        reference: FrozenTarget | None = None,
        cached: CachedTopKTarget | None = None,
        vocab_size: int | None = None,
    ) -> None:
        """reference: of token selection; a draft that was distilled before. cached: in the place of
        the target, which then is not asked. vocab_size: tokens common to both models, which `nll`
        too is normalised over.
        """
        assert target is not None or cached is not None or not distill.needs_target
        assert cached is None or distill.cached_logits is not None
        assert (reference is None) == (distill.select is None)
        self.distill = distill
        self.target = target if distill.reads_target and cached is None else None
        self.cached = cached
        self.reference = reference
        self._vocab_size = vocab_size
        self._settings = DivergenceSettings(distill.jsd_weight, distill.lk_eta)
        self._of_tokens: dict[str, float] = {
            name: weight for name, weight in distill.terms.items() if name in DIVERGENCES
        }

    def __call__(self, draft: nn.Module, batch: Batch) -> DivergenceSums:
        """All forwards; sums over the batch's response tokens, by their `token_weights`.

        The batch is taken for the whole step, where that matters.
        """
        signal = self.target_signal(draft, batch)
        if not self.distill.reads_whole_steps:
            return self.against(draft, batch, signal)
        observed = self.observe(draft, batch, signal)
        return self.against(draft, batch, signal, observed.emphasis([observed], self.distill))

    @torch.no_grad()
    def target_signal(self, draft: nn.Module, batch: Batch) -> CachedTopK:
        """The target's forward over the batch, kept at the positions that predict a response.

        What the batch has brought of it, or a cache has kept, is not computed again.
        """
        if self.cached is not None:
            return CachedTopK(None, None, self.cached.top_tokens(batch))
        if self.target is None:
            return CachedTopK(None, None)
        head = self.target.head
        if head is None:
            logits = self.target.logits(batch.tokens, batch.is_token, _layout(batch))
            return CachedTopK(None, logits[predicts_response(batch)])
        states = self._states(self.target, batch)
        read = [draft] if self.reference is None else [draft, self.reference.model]
        if any(output_head(model) is None for model in read):
            return CachedTopK(states, head.logits(states))
        return CachedTopK(states, None)

    def _states(self, target: FrozenTarget, batch: Batch) -> Tensor:
        """The target's hidden states at the N positions, [N, H]."""
        predicts, known = predicts_response(batch), batch.known
        if known is None:
            return target.hidden(batch.tokens, batch.is_token, _layout(batch))[predicts]
        if bool(known.positions.all()):
            return known.states
        at = predicts.nonzero()[:, 0]
        new = torch.zeros_like(predicts[:, 0])
        new[at[~known.positions]] = True  # rows in which anything is not known
        layout = _layout(batch)
        if layout is not None:
            layout = Layout(layout.positions[new], layout.sees[new])
        found = target.hidden(batch.tokens[new], batch.is_token[new], layout)[predicts[new]]
        states = found.new_empty(len(at), found.shape[1])
        states[new[at]] = found
        states[known.positions] = known.states.to(found.dtype)
        return states

    @torch.no_grad()
    def observe(self, draft: nn.Module, batch: Batch, signal: CachedTopK) -> StepStatistics:
        """The first of two passes: what a token's weight in its step depends on."""
        sides = self._sides(draft, batch, signal)
        if self.reference is None:
            chance, alpha = sides.scores(_scored(draft, batch).places)
            return StepStatistics((chance < 1.0).to(chance.dtype), None, alpha)
        nats = divergence("forward_kl")
        mine, alpha = sides.scores(nats)
        theirs = self._sides(self.reference.model, batch, signal).scores(nats).value
        return StepStatistics(None, mine - theirs, alpha)

    def against(
        self,
        draft: nn.Module,
        batch: Batch,
        signal: CachedTopK,
        emphasis: TokenWeights | None = None,
    ) -> DivergenceSums:
        """The draft's forward and the sums; differentiable in the draft's weights.

        emphasis: what `observe` has led to, for objectives that read whole steps.
        """
        assert (emphasis is not None) == self.distill.reads_whole_steps
        weights = token_weights(batch, self.distill.reduction)
        if emphasis is not None:
            weights = emphasis.kept(weights)
        sides = self._sides(draft, batch, signal)
        terms, found = self.distill.terms, []
        if self._of_tokens:
            found.append(sides.divergence(mixture(self._of_tokens, self._settings), weights))
        if "block_efficiency" in terms:
            if self.distill.block_form == "drawn":
                loss = self._drawn_blocks(sides, batch, _scored(draft, batch).places, weights)
            else:
                loss = self._block_efficiency(sides, batch, weights)
            found.append(loss.times(terms["block_efficiency"]))
        if "tvd_plus" in terms:
            assert emphasis is not None
            loss = self._tvd_plus(sides, _scored(draft, batch), weights, emphasis)
            found.append(loss.times(terms["tvd_plus"]))
        if "nll" in terms:  # at temperature 1: data has none of its own
            following = _scored(draft, batch)
            loss = sides.cross_entropy(following.places, weights * following.is_scored, 1.0)
            found.append(loss.times(terms["nll"]))
        return DivergenceSums.added(found)

    def _block_efficiency(self, sides: LossInputs, batch: Batch, weights: Tensor) -> DivergenceSums:
        """Minus what blocks keep; its gradient is the total variation's, weighed by worth."""
        distance = divergence("tvd")
        lengths = texts_of(batch).tolist()
        with torch.no_grad():
            alpha = sides.scores(distance).alpha
        worth = block_worth(alpha, lengths, self.distill.block_gamma)
        sums = sides.divergence(distance, (weights * worth.weights).to(weights.dtype))
        kept = (weights * worth.kept).sum()
        value = sums.divergence - sums.divergence.detach() - kept
        return DivergenceSums(value, alpha.sum(), sums.tokens.new_tensor(alpha.shape[0]))

    def _drawn_blocks(
        self, sides: LossInputs, batch: Batch, tokens: Tensor, weights: Tensor
    ) -> DivergenceSums:
        """The same, by the keep chances r = min(1, q / p) of the text's tokens, long [N].

        Over texts of the target, what blocks keep of them and its gradient are unbiased. r has the
        slope r * d log q where it is below 1, and none elsewhere.
        """
        chance, alpha = sides.scores(tokens)
        worth = block_worth(chance, texts_of(batch).tolist(), self.distill.block_gamma)
        slope = weights * worth.weights * chance * (chance < 1.0)
        sums = sides.cross_entropy(tokens, slope.to(weights.dtype), self.distill.temperature)
        kept = (weights * worth.kept).sum()
        value = sums.divergence - sums.divergence.detach() - kept
        return DivergenceSums(value, alpha.sum(), sums.tokens.new_tensor(alpha.shape[0]))

    def _tvd_plus(
        self, sides: LossInputs, drawn: _Scored, weights: Tensor, emphasis: TokenWeights
    ) -> DivergenceSums:
        """Minus log q of each token the draft has drawn, times its advantage (2403.00858).

        A surrogate whose slope is what counts: in one step the rewards alone would give, in
        expectation, the gradient of the total variation.
        """
        assert emphasis.advantages is not None
        sums = sides.cross_entropy(
            drawn.places, weights * emphasis.advantages, self.distill.temperature
        )
        count = sums.tokens.new_tensor(emphasis.alpha.shape[0])
        return DivergenceSums(sums.divergence, emphasis.alpha.sum(), count)

    def _sides(self, draft: nn.Module, batch: Batch, signal: CachedTopK) -> LossInputs:
        predicts = predicts_response(batch)
        head, theirs = output_head(draft), None if self.target is None else self.target.head
        whole = signal.logits is not None or head is None
        states = token_logits if whole else hidden_states
        mine = states(draft, batch.tokens, batch.is_token, layout=_layout(batch))[predicts]
        head = None if whole else head
        common = _common_rows(draft)
        if common is not None:
            theirs = theirs and theirs.only(common.target)
            if signal.logits is not None:
                signal = signal._replace(logits=signal.logits[:, common.target])
            if head is None:
                mine = mine[:, common.target]
            else:
                head = head.only(common.draft)
        return LossInputs(
            signal,
            theirs,
            mine,
            head,
            temperature=self.distill.temperature,
            chunk_tokens=self.distill.chunk_tokens,
            vocab_size=self._vocab_size,
        )


def _layout(batch: Batch) -> Layout | None:
    return None if batch.tree is None else Layout(batch.tree.positions, batch.tree.sees)


class _Common(NamedTuple):
    """Rows of the two heads that stand for the same tokens, long [K]; the target's ascend."""

    target: Tensor
    draft: Tensor


def _common_rows(draft: nn.Module) -> _Common | None:
    """None where the draft scores all that it shares with the target, under the same ids."""
    model = bare_model(draft)
    kept, bridge = kept_tokens(model), bridge_of(model)
    if kept is not None:
        return _Common(kept, kept)
    if bridge is not None:
        return _Common(*bridge.ids(model.device))
    return None


class _Scored(NamedTuple):
    """The token that each predicting position predicts, as the draft's head knows it.

    places: its row of the head, long [N]; is_scored: whether it has one, [N].
    """

    places: Tensor
    is_scored: Tensor


def _scored(draft: nn.Module, batch: Batch) -> _Scored:
    tokens = batch.tokens[:, 1:][predicts_response(batch)[:, :-1]]
    common = _common_rows(draft)
    if common is None:
        return _Scored(tokens, torch.ones_like(tokens))
    places = torch.searchsorted(common.target, tokens).clamp_(max=len(common.target) - 1)
    return _Scored(places, common.target[places] == tokens)

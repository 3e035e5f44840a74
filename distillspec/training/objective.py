"""The objective of a step: sums of losses at the response tokens of a batch.

It is callable without a trainer. It returns sums; `step` divides them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from distillspec.corpus.batches.batching import Batch
from distillspec.divergence.block_efficiency import block_worth
from distillspec.divergence.comparison import Comparison, TokenLikelihood
from distillspec.divergence.logit_rows import ModelRows
from distillspec.divergence.reduction import DivergenceSums
from distillspec.divergence.row_pass import RowScores, row_scores, weighted_sums
from distillspec.divergence.table import DIVERGENCES, DivergenceSettings, divergence, mixture
from distillspec.models.bare import bare_model
from distillspec.models.surgery.frozen_target import FrozenTarget
from distillspec.models.surgery.hidden_states import (
    TreeLayout,
    hidden_states,
    output_head,
    token_logits,
)
from distillspec.models.vocabulary.cross_tokenizer import token_map_of
from distillspec.models.vocabulary.trimmed_head import kept_tokens
from distillspec.recipe.distill import DistillConfig
from distillspec.training.cached_target import CachedTopKTarget
from distillspec.training.loss_inputs import LossInputs, TargetOutputs
from distillspec.training.loss_positions import predicts_response, token_weights, tokens_per_text
from distillspec.training.token_weights import StepStatistics, TokenWeights


class Objective:
    """The losses of a recipe, weighted and added up.

    If both heads are plain matrices, hidden states are projected chunk by chunk. Otherwise (a head
    that does more, LoRA on it, weights sharded over processes) the models compute their own logits,
    and only the divergence is chunked. Unequal vocabularies are trimmed to the common rows.

    A draft with a trimmed head or its own tokenizer scores a part of the vocabulary. Then p is the
    target's distribution conditioned on that part: a draft that matches it loses only the mass
    outside of the part. Tokens outside weigh 0 in `nll`, but count in the divisor of the loss.

    All divergences of single tokens share one pass over the hidden states. These losses add a pass
    each: `nll` and `tvd_plus`, which score the tokens of the text, and `block_efficiency`, whose
    token weights depend on neighbouring tokens.
    """

    def __init__(
        self,
        distill: DistillConfig,
        target: FrozenTarget | None,
        reference: FrozenTarget | None = None,
        cached: CachedTopKTarget | None = None,
        vocab_size: int | None = None,
    ) -> None:
        """Prepare the losses of a recipe.

        Args:
            distill: The recipe's section.
            target: None if no loss reads a target, or only on text that `cached` has.
            reference: A draft that was distilled before, for token selection.
            cached: Cached top-k logits of stored text, read in place of the target.
            vocab_size: Tokens that both models share; all losses are normalised over them.
        """
        assert target is not None or not distill.needs_target
        assert cached is None or distill.cached_logits is not None
        assert (reference is None) == (distill.select is None)
        self.distill = distill
        self.target = target if distill.reads_target else None
        self.cached = cached
        self.reference = reference
        self._vocab_size = vocab_size
        self._settings = DivergenceSettings(distill.jsd_weight, distill.lk_eta)
        self._token_divergences: dict[str, float] = {
            name: weight for name, weight in distill.terms.items() if name in DIVERGENCES
        }

    def __call__(self, draft: nn.Module, batch: Batch) -> DivergenceSums:
        """Run all forwards; return sums over the batch's response tokens by their `token_weights`.

        Objectives that read entire steps treat the batch as the entire step.
        """
        outputs = self.target_outputs(draft, batch, is_stored=True)
        if not self.distill.reads_whole_steps:
            return self.loss(draft, batch, outputs)
        observed = self.observe(draft, batch, outputs)
        return self.loss(draft, batch, outputs, observed.weights([observed], self.distill))

    @torch.no_grad()
    def target_outputs(
        self, draft: nn.Module, batch: Batch, *, is_stored: bool = False
    ) -> TargetOutputs:
        """The target's forward over the batch, at the positions that predict a response.

        Hidden states that the batch brings, and cached logits, are not computed again.

        Args:
            draft: The model that is trained.
            batch: One micro-batch.
            is_stored: Whether its responses were known before training: then the cache has them.
        """
        if self.cached is not None and is_stored:
            return TargetOutputs(None, None, self.cached.top_tokens(batch))
        if self.target is None:
            return TargetOutputs(None, None)
        head = self.target.head
        # No plain head: the target computes its own logits.
        if head is None:
            logits = self.target.logits(batch.tokens, batch.is_token, _layout(batch))
            return TargetOutputs(None, logits[predicts_response(batch)])
        states = self._states(self.target, batch)
        compared = [draft] if self.reference is None else [draft, self.reference.model]
        # A draft or reference without a plain head gives logits, and so must the target.
        # The states are still returned, for the replay buffer.
        if any(output_head(model) is None for model in compared):
            return TargetOutputs(states, head.logits(states))
        return TargetOutputs(states, None)

    def _states(self, target: FrozenTarget, batch: Batch) -> Tensor:
        """The target's hidden states at the N positions, [N, H]."""
        predicts, known = predicts_response(batch), batch.known
        if known is None:
            return target.hidden(batch.tokens, batch.is_token, _layout(batch))[predicts]
        if bool(known.positions.all()):
            return known.states
        # A row has one forward: if any of its positions is unknown, all are computed.
        row_of = predicts.nonzero()[:, 0]
        is_new = torch.zeros_like(predicts[:, 0])
        is_new[row_of[~known.positions]] = True  # rows with at least one unknown position
        layout = _layout(batch)
        if layout is not None:
            layout = TreeLayout(layout.positions[is_new], layout.sees[is_new])
        computed = target.hidden(batch.tokens[is_new], batch.is_token[is_new], layout)
        # The N positions are in row-major order, and a selection of rows keeps this order.
        # So the states computed here are in the order of `is_new[row_of]`.
        computed = computed[predicts[is_new]]
        states = computed.new_empty(len(row_of), computed.shape[1])
        states[is_new[row_of]] = computed
        states[known.positions] = known.states.to(computed.dtype)
        return states

    @torch.no_grad()
    def observe(self, draft: nn.Module, batch: Batch, outputs: TargetOutputs) -> StepStatistics:
        """The first of two passes: the statistics that token weights depend on."""
        inputs = self._inputs(draft, batch, outputs)
        # TVD++: p(token) > q(token) where min(1, q / p) is below 1.
        if self.reference is None:
            tokens = _predicted(draft, batch).rows
            acceptance, alpha = self._scores(inputs.draft, inputs.acceptance(tokens))
            return StepStatistics((acceptance < 1.0).to(acceptance.dtype), None, alpha)
        # Token selection: how much further from the target the draft is than the reference.
        nats = divergence("forward_kl")
        draft_nats, alpha = self._scores(inputs.draft, inputs.divergence(nats))
        inputs = self._inputs(self.reference.model, batch, outputs)
        reference_nats = self._scores(inputs.draft, inputs.divergence(nats)).value
        return StepStatistics(None, draft_nats - reference_nats, alpha)

    def loss(
        self,
        draft: nn.Module,
        batch: Batch,
        outputs: TargetOutputs,
        step_weights: TokenWeights | None = None,
    ) -> DivergenceSums:
        """Run the draft's forward; the sums are differentiable in its weights.

        Args:
            draft: The model that is trained.
            batch: One micro-batch.
            outputs: Result of `target_outputs` for it.
            step_weights: Token weights from `observe`, for objectives that read entire steps.
        """
        assert (step_weights is not None) == self.distill.reads_whole_steps
        weights = token_weights(batch, self.distill.reduction)
        if step_weights is not None:
            weights = step_weights.kept(weights)
        inputs = self._inputs(draft, batch, outputs)
        terms, sums = self.distill.terms, []
        # Each loss below adds the sums of its pass.
        if self._token_divergences:
            measure = mixture(self._token_divergences, self._settings)
            sums.append(self._sums(inputs.draft, inputs.divergence(measure), weights))
        if "block_efficiency" in terms:
            if self.distill.block_form == "drawn":
                tokens = _predicted(draft, batch).rows
                blocks = self._drawn_blocks(inputs, batch, tokens, weights)
            else:
                blocks = self._block_efficiency(inputs, batch, weights)
            sums.append(blocks.times(terms["block_efficiency"]))
        if "tvd_plus" in terms:
            assert step_weights is not None
            drawn = _predicted(draft, batch).rows
            advantages = self._tvd_plus(inputs, drawn, weights, step_weights)
            sums.append(advantages.times(terms["tvd_plus"]))
        if "nll" in terms:  # at temperature 1: stored text has no temperature
            rows, is_scored = _predicted(draft, batch)
            likelihood = TokenLikelihood(rows)
            nll = self._sums(inputs.draft, likelihood, weights * is_scored, temperature=1.0)
            sums.append(nll.times(terms["nll"]))
        return DivergenceSums.added(sums)

    def _block_efficiency(
        self, inputs: LossInputs, batch: Batch, weights: Tensor
    ) -> DivergenceSums:
        """Minus the tokens that blocks keep.

        The gradient is that of the total variation, weighted by `block_worth`.
        """
        distance = inputs.divergence(divergence("tvd"))
        lengths = tokens_per_text(batch).tolist()
        # 1. First pass: alpha of each token, from which the weights follow.
        alpha = self._scores(inputs.draft, distance).alpha
        worth = block_worth(alpha, lengths, self.distill.block_gamma)
        # 2. Second pass: the weights carry no gradient, only the divergence does.
        sums = self._sums(inputs.draft, distance, (weights * worth.weights).to(weights.dtype))
        # The value is minus the kept tokens; the gradient comes from the weighted divergence.
        kept_sum = (weights * worth.kept).sum()
        value = sums.divergence - sums.divergence.detach() - kept_sum
        # `sums` leaves out rows of weight 0. alpha is reported over all tokens.
        return DivergenceSums(value, alpha.sum(), sums.tokens.new_tensor(alpha.shape[0]))

    def _drawn_blocks(
        self, inputs: LossInputs, batch: Batch, tokens: Tensor, weights: Tensor
    ) -> DivergenceSums:
        """Minus the tokens that blocks keep, by r = min(1, q / p) of the text's tokens, long [N].

        Over texts of the target, the number of kept tokens and its gradient are unbiased. r has
        the slope r * d log q where it is below 1, and slope 0 elsewhere.
        """
        acceptance, alpha = self._scores(inputs.draft, inputs.acceptance(tokens))
        worth = block_worth(acceptance, tokens_per_text(batch).tolist(), self.distill.block_gamma)
        # Minus log q times this slope has the gradient of minus r: d r = r * d log q.
        slope = weights * worth.weights * acceptance * (acceptance < 1.0)
        sums = self._sums(inputs.draft, TokenLikelihood(tokens), slope.to(weights.dtype))
        kept_sum = (weights * worth.kept).sum()
        value = sums.divergence - sums.divergence.detach() - kept_sum
        return DivergenceSums(value, alpha.sum(), sums.tokens.new_tensor(alpha.shape[0]))

    def _tvd_plus(
        self, inputs: LossInputs, drawn: Tensor, weights: Tensor, step_weights: TokenWeights
    ) -> DivergenceSums:
        """Minus log q of each token that the draft drew, long [N], times its advantage.

        The loss is a surrogate: only its gradient has a meaning. Rewards in place of advantages
        would give the gradient of the total variation, in expectation over one step.

        Source: TVD++, 2403.00858.
        """
        assert step_weights.advantages is not None
        likelihood = TokenLikelihood(drawn)
        sums = self._sums(inputs.draft, likelihood, weights * step_weights.advantages)
        count = sums.tokens.new_tensor(step_weights.alpha.shape[0])
        return DivergenceSums(sums.divergence, step_weights.alpha.sum(), count)

    def _sums(
        self,
        draft: ModelRows,
        comparison: Comparison,
        weights: Tensor,
        temperature: float | None = None,
    ) -> DivergenceSums:
        return weighted_sums(
            draft,
            comparison,
            weights=weights,
            temperature=self.distill.temperature if temperature is None else temperature,
            chunk_tokens=self.distill.chunk_tokens,
        )

    def _scores(self, draft: ModelRows, comparison: Comparison) -> RowScores:
        return row_scores(
            draft,
            comparison,
            temperature=self.distill.temperature,
            chunk_tokens=self.distill.chunk_tokens,
        )

    def _inputs(self, draft: nn.Module, batch: Batch, outputs: TargetOutputs) -> LossInputs:
        """The rows of both models at the predicted tokens, over their common vocabulary."""
        predicts, layout = predicts_response(batch), _layout(batch)
        # If the target gives logits, some model has no plain head. Then all models give logits.
        head = None if outputs.logits is not None else output_head(draft)
        states = token_logits if head is None else hidden_states
        rows = ModelRows(states(draft, batch.tokens, batch.is_token, layout=layout)[predicts], head)
        target = outputs.rows(None if self.target is None else self.target.head)
        # A draft that scores a part of the vocabulary: both models over that part.
        common = _common_tokens(draft)
        if common is not None:
            # `token_logits` is already over the target's ids, a head is over the draft's.
            rows = rows.only(common.target if head is None else common.draft)
            target = None if target is None else target.only(common.target)
        return LossInputs.of(rows, target if outputs.top is None else outputs.top, self._vocab_size)


def _layout(batch: Batch) -> TreeLayout | None:
    return None if batch.tree is None else TreeLayout(batch.tree.positions, batch.tree.sees)


class _CommonTokens(NamedTuple):
    """Rows of the two heads that stand for the same tokens.

    Attributes:
        target: Row of the target's head, ascending, long [K].
        draft: Row of the draft's head, long [K].
    """

    target: Tensor
    draft: Tensor


def _common_tokens(draft: nn.Module) -> _CommonTokens | None:
    """None if the draft's head has a row for every shared token, under the same ids."""
    model = bare_model(draft)
    tokens, token_map = kept_tokens(model), token_map_of(model)
    if tokens is not None:
        return _CommonTokens(tokens, tokens)
    if token_map is not None:
        return _CommonTokens(*token_map.ids(model.device))
    return None


class _Predicted(NamedTuple):
    """The token after each predicting position, as a row of the draft's head.

    Attributes:
        rows: Row of the head, long [N].
        is_scored: Whether the head has a row for it, [N].
    """

    rows: Tensor
    is_scored: Tensor


def _predicted(draft: nn.Module, batch: Batch) -> _Predicted:
    # The token *after* each position: the shift of `loss_positions`.
    tokens = batch.tokens[:, 1:][predicts_response(batch)[:, :-1]]
    common = _common_tokens(draft)
    if common is None:
        return _Predicted(tokens, torch.ones_like(tokens))
    # A token above all common ones gets an index past the end; the clamp keeps it readable,
    # and the comparison finds that it is not scored.
    rows = torch.searchsorted(common.target, tokens).clamp_(max=len(common.target) - 1)
    return _Predicted(rows, common.target[rows] == tokens)

"""What a step minimises: losses at the response tokens of a batch, summed.

Callable without a trainer. Sums come out, nothing is divided here.
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
    Layout,
    hidden_states,
    output_head,
    token_logits,
)
from distillspec.models.vocabulary.cross_tokenizer import bridge_of
from distillspec.models.vocabulary.trimmed_head import kept_tokens
from distillspec.recipe.distill import DistillConfig
from distillspec.training.cached_target import CachedTopKTarget
from distillspec.training.loss_inputs import LossInputs, TargetOutputs
from distillspec.training.loss_positions import predicts_response, texts_of, token_weights
from distillspec.training.token_weights import StepStatistics, TokenWeights


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
        outputs = self.target_outputs(draft, batch)
        if not self.distill.reads_whole_steps:
            return self.loss(draft, batch, outputs)
        observed = self.observe(draft, batch, outputs)
        return self.loss(draft, batch, outputs, observed.weights([observed], self.distill))

    @torch.no_grad()
    def target_outputs(self, draft: nn.Module, batch: Batch) -> TargetOutputs:
        """The target's forward over the batch, kept at the positions that predict a response.

        What the batch has brought of it, or a cache has kept, is not computed again.
        """
        if self.cached is not None:
            return TargetOutputs(None, None, self.cached.top_tokens(batch))
        if self.target is None:
            return TargetOutputs(None, None)
        head = self.target.head
        if head is None:
            logits = self.target.logits(batch.tokens, batch.is_token, _layout(batch))
            return TargetOutputs(None, logits[predicts_response(batch)])
        states = self._states(self.target, batch)
        read = [draft] if self.reference is None else [draft, self.reference.model]
        if any(output_head(model) is None for model in read):
            return TargetOutputs(states, head.logits(states))
        return TargetOutputs(states, None)

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
    def observe(self, draft: nn.Module, batch: Batch, outputs: TargetOutputs) -> StepStatistics:
        """The first of two passes: what the weight of a token in its step depends on."""
        inputs = self._inputs(draft, batch, outputs)
        if self.reference is None:
            tokens = _predicted(draft, batch).rows
            acceptance, alpha = self._scores(inputs.draft, inputs.acceptance(tokens))
            return StepStatistics((acceptance < 1.0).to(acceptance.dtype), None, alpha)
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
        """The draft's forward and the sums; differentiable in the draft's weights.

        Args:
            draft: The model that is trained.
            batch: One micro-batch.
            outputs: What `target_outputs` gave for it.
            step_weights: What `observe` has led to, for objectives that read entire steps.
        """
        assert (step_weights is not None) == self.distill.reads_whole_steps
        weights = token_weights(batch, self.distill.reduction)
        if step_weights is not None:
            weights = step_weights.kept(weights)
        inputs = self._inputs(draft, batch, outputs)
        terms, sums = self.distill.terms, []
        if self._of_tokens:
            measure = mixture(self._of_tokens, self._settings)
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
        if "nll" in terms:  # at temperature 1: data has no temperature
            rows, is_scored = _predicted(draft, batch)
            likelihood = TokenLikelihood(rows)
            nll = self._sums(inputs.draft, likelihood, weights * is_scored, temperature=1.0)
            sums.append(nll.times(terms["nll"]))
        return DivergenceSums.added(sums)

    def _block_efficiency(
        self, inputs: LossInputs, batch: Batch, weights: Tensor
    ) -> DivergenceSums:
        """Minus the tokens that blocks keep; the gradient is the total variation's, by worth."""
        distance = inputs.divergence(divergence("tvd"))
        lengths = texts_of(batch).tolist()
        alpha = self._scores(inputs.draft, distance).alpha
        worth = block_worth(alpha, lengths, self.distill.block_gamma)
        sums = self._sums(inputs.draft, distance, (weights * worth.weights).to(weights.dtype))
        kept = (weights * worth.kept).sum()
        value = sums.divergence - sums.divergence.detach() - kept
        return DivergenceSums(value, alpha.sum(), sums.tokens.new_tensor(alpha.shape[0]))

    def _drawn_blocks(
        self, inputs: LossInputs, batch: Batch, tokens: Tensor, weights: Tensor
    ) -> DivergenceSums:
        """The same, by the acceptance r = min(1, q / p) of the text's tokens, long [N].

        Over texts of the target, the number of kept tokens and its gradient are unbiased. r has
        the slope r * d log q where it is below 1, and none elsewhere.
        """
        acceptance, alpha = self._scores(inputs.draft, inputs.acceptance(tokens))
        worth = block_worth(acceptance, texts_of(batch).tolist(), self.distill.block_gamma)
        slope = weights * worth.weights * acceptance * (acceptance < 1.0)
        sums = self._sums(inputs.draft, TokenLikelihood(tokens), slope.to(weights.dtype))
        kept = (weights * worth.kept).sum()
        value = sums.divergence - sums.divergence.detach() - kept
        return DivergenceSums(value, alpha.sum(), sums.tokens.new_tensor(alpha.shape[0]))

    def _tvd_plus(
        self, inputs: LossInputs, drawn: Tensor, weights: Tensor, step_weights: TokenWeights
    ) -> DivergenceSums:
        """Minus log q of each token that the draft drew, long [N], times its advantage.

        A surrogate: its gradient counts, not its value. In one step the rewards alone would give,
        in expectation, the gradient of the total variation. Source: TVD++, 2403.00858.
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
        head = None if outputs.logits is not None else output_head(draft)
        states = token_logits if head is None else hidden_states
        rows = ModelRows(states(draft, batch.tokens, batch.is_token, layout=layout)[predicts], head)
        target = outputs.rows(None if self.target is None else self.target.head)
        common = _common_tokens(draft)
        if common is not None:
            rows = rows.only(common.target if head is None else common.draft)
            target = None if target is None else target.only(common.target)
        return LossInputs.of(rows, target if outputs.top is None else outputs.top, self._vocab_size)


def _layout(batch: Batch) -> Layout | None:
    return None if batch.tree is None else Layout(batch.tree.positions, batch.tree.sees)


class _CommonTokens(NamedTuple):
    """Rows of the two heads that stand for the same tokens, long [K]; the target's ascend."""

    target: Tensor
    draft: Tensor


def _common_tokens(draft: nn.Module) -> _CommonTokens | None:
    """None where the draft scores all that it shares with the target, under the same ids."""
    model = bare_model(draft)
    kept, bridge = kept_tokens(model), bridge_of(model)
    if kept is not None:
        return _CommonTokens(kept, kept)
    if bridge is not None:
        return _CommonTokens(*bridge.ids(model.device))
    return None


class _Predicted(NamedTuple):
    """The token that each predicting position predicts, as the draft's head knows it.

    Attributes:
        rows: Row of the head, long [N].
        is_scored: Whether the head has a row for it, [N].
    """

    rows: Tensor
    is_scored: Tensor


def _predicted(draft: nn.Module, batch: Batch) -> _Predicted:
    tokens = batch.tokens[:, 1:][predicts_response(batch)[:, :-1]]
    common = _common_tokens(draft)
    if common is None:
        return _Predicted(tokens, torch.ones_like(tokens))
    rows = torch.searchsorted(common.target, tokens).clamp_(max=len(common.target) - 1)
    return _Predicted(rows, common.target[rows] == tokens)

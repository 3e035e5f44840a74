"""The target's distributions for a batch, read from disk in place of a forward."""

from __future__ import annotations

from distillspec.corpus.batches.batching import Batch, TreeRows
from distillspec.corpus.stores.top_k import TopKStore, TopKText
from distillspec.divergence.top_tokens import TopTokens


class CachedTopKTarget:
    """Cached top-k logits of a store, which finds the rows of a batch by their tokens."""

    def __init__(self, store: TopKStore) -> None:
        self.store = store

    def top_tokens(self, batch: Batch) -> TopTokens:
        """The target's distribution of each predicted token, in the order of `predicts_response`.

        Returns:
            N rows on the device of the batch.

        Raises:
            DistillSpecError: The store lacks a row, or is damaged.
        """
        return self.store.read(top_k_texts(batch)).to(batch.tokens.device)


def top_k_texts(batch: Batch) -> list[TopKText]:
    """Each text without padding, with the position of its first token in the loss.

    In a padded batch that is the first response token. Packed rows store it with each text.
    """
    if batch.tree is not None:
        return _packed_texts(batch, batch.tree)
    lengths, predicted = batch.is_token.sum(1).tolist(), batch.is_response.sum(1).tolist()
    return [
        TopKText(tuple(row[:length]), length - count)
        for row, length, count in zip(batch.tokens.tolist(), lengths, predicted, strict=True)
    ]


def _packed_texts(batch: Batch, tree: TreeRows) -> list[TopKText]:
    """Split packed rows where positions restart at 0; cached rows have no rejected branches."""
    texts = []
    lengths = batch.is_token.sum(1).tolist()
    for row, positions, length in zip(
        batch.tokens.tolist(), tree.positions.tolist(), lengths, strict=True
    ):
        starts = [index for index in range(length) if positions[index] == 0]
        ends = [*starts[1:], length]
        texts += [tuple(row[start:end]) for start, end in zip(starts, ends, strict=True)]
    return [
        TopKText(text, len(text) - count)
        for text, count in zip(texts, tree.lengths.tolist(), strict=True)
    ]

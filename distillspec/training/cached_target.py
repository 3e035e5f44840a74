"""The target's word on a batch, read from disk in place of a forward."""

from __future__ import annotations

from distillspec.corpus.batches.batching import Batch, TreeRows
from distillspec.corpus.stores.top_k import TopKStore, TopKText
from distillspec.divergence.top_tokens import TopTokens


class CachedTopKTarget:
    """Finds a batch's rows in a store by their tokens: nothing else has to travel with a row."""

    def __init__(self, store: TopKStore) -> None:
        self.store = store

    def top_tokens(self, batch: Batch) -> TopTokens:
        """Of each predicted token, row by row as `predicts_response` has them, on their device.

        Errors: as the store's: a row that it does not have, damage.
        """
        return self.store.read(texts_of(batch)).to(batch.tokens.device)


def texts_of(batch: Batch) -> list[TopKText]:
    """Each text without padding, and where its prediction begins: in a row alone at its first
    response token, among others where the row says so.
    """
    if batch.tree is not None:
        return _packed_texts(batch, batch.tree)
    lengths, predicted = batch.is_token.sum(1).tolist(), batch.is_response.sum(1).tolist()
    return [
        TopKText(tuple(row[:length]), length - count)
        for row, length, count in zip(batch.tokens.tolist(), lengths, predicted, strict=True)
    ]


def _packed_texts(batch: Batch, tree: TreeRows) -> list[TopKText]:
    """Texts begin where positions do; there are no sides, since no draft has written anything."""
    texts = []
    lengths = batch.is_token.sum(1).tolist()
    for row, positions, length in zip(
        batch.tokens.tolist(), tree.positions.tolist(), lengths, strict=True
    ):
        starts = [place for place in range(length) if positions[place] == 0]
        ends = [*starts[1:], length]
        texts += [tuple(row[start:end]) for start, end in zip(starts, ends, strict=True)]
    return [
        TopKText(text, len(text) - count)
        for text, count in zip(texts, tree.lengths.tolist(), strict=True)
    ]

"""Rows become padded or packed batches, in their order."""

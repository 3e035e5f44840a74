"""Models changed for training: heads, adapters, pruning, sharding."""

"""Models prepared for training: heads, adapters, pruning and sharding."""

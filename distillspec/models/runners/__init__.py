"""Models behind the protocol of decoding: caches, masks and compiled graphs."""

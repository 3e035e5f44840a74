"""Models behind the protocol of decoding: caches, masks, compiled graphs."""

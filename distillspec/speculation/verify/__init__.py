"""What of a proposal to keep: pure functions on p, q and the drafted tokens."""

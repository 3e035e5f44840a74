"""Training with Lightning: objective, rollout, strategies, probe and checkpoints."""

"""The room that knows Lightning: objective, rollout, strategies, probe, resume."""

"""Acceptance and expected block efficiency on the text of the target, without a clock."""

"""Timed decoding: cells, prompts and their rows."""

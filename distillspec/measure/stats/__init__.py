"""Intervals and tests over source documents."""

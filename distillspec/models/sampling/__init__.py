"""Whole responses in batches."""

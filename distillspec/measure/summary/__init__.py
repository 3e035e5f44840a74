"""Rows become the summary of an evaluation."""

"""Stores of the target's responses and distributions on disk."""

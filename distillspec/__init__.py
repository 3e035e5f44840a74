"""Distil a draft model for speculative decoding, and measure what it gains. Imports no torch."""

__version__ = "0.1.0"

"""Decoding: draft, verify, commit. It knows what maps tokens to logits, not transformers."""

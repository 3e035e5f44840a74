"""Distances between the draft's and the target's distribution, computed in chunks of rows."""

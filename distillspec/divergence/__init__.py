"""How far the draft's distribution is from the target's: pure maths, and its chunking."""

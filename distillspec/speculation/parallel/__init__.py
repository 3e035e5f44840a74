"""Draft and target at the same time, in two processes: CARD and PEARL."""

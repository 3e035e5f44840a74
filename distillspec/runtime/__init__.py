"""What a process and its files are: atomic writes, locks, provenance, signals, torchrun."""

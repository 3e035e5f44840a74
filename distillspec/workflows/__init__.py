"""One verb a file: what a command does, stage by stage."""

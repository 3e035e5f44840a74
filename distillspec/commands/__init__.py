"""One verb a file, thin: arguments in, exit code out."""

"""A method of a suite, which is data, becomes the objects that decode."""

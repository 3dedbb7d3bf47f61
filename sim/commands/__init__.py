"""Commands of the command line and their output; their implementation is in the other packages of `sim`."""

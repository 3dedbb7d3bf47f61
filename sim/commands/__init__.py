"""The commands of the command line, and what they print; what they do lives beside them in `sim`."""

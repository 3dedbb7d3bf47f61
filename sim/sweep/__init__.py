"""Many emulations, over lists of values of options, and their table."""

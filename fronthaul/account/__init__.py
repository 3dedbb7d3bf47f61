"""Counting: what every message costs, what both ends agree happened, and that nothing is unaccounted for."""

"""Training ECC."""

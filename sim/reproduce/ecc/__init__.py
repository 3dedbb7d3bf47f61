"""ECC's tables."""

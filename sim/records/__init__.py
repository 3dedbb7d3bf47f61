"""A run's folder: its files, the tables derived from its streams, its summary."""

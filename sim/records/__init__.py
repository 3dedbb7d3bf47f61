"""A run's folder: its files, the books closed from its streams, its summary."""

"""Everything that combines edge, fronthaul and cloud: world model, learning and emulation runs."""

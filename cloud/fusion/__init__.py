"""Fusion rules, one per file."""

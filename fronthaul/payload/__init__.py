"""Payload formats: one per scheme, used by its edge and cloud halves."""

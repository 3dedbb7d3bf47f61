"""Payload formats: one a scheme, used by both of its halves."""

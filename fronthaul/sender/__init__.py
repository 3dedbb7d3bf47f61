"""Sending: numbering, bundling and link model, then journal and transport."""

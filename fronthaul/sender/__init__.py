"""Sending: numbering, bundling and bending by the link model, then journal and transport."""

"""Carrying messages: in memory or over ZeroMQ, held back, encrypted, counted by the kernel."""

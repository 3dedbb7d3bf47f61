"""Transports that carry messages, in memory or over ZeroMQ: delay lines, encryption, byte counts of the kernel."""

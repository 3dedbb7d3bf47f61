"""What is told of a run while it goes on, to machines: metrics for Prometheus, and a log of JSON lines."""

"""Benchmarks of the parts and of the whole, relative to baselines measured in the same run; docs/benchmarks.md."""

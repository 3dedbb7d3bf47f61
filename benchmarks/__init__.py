"""Timings of the parts and of the whole, as ratios to a yardstick measured in the same run; docs/benchmarks.md."""

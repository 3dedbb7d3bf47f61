"""Records that each end writes during a run: Arrow streams that survive kill -9, and captures."""

"""What each end writes down while a run goes on: Arrow streams that survive kill -9, and captures."""

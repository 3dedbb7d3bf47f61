"""Everything that composes edge, fronthaul and cloud: the world, the learning, the runs."""

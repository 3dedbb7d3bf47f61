"""Training and evaluation of VIn-Loc and of its baselines."""

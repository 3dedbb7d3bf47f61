"""Emulating: the loop in one process or on Ray, controls, chaos, pictures of a run."""

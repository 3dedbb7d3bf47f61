"""Emulation: drivers in one process and on Ray, controls, fault injection, pictures of a run."""

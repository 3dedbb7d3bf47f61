"""Inspection of a run's folder: frames, timeline, replay, audit."""

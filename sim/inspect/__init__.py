"""Looking into a run's folder: frames, timeline, replay, audit."""

"""DiffLoc: data, trainings and evaluations."""

"""Training, evaluation and the controls that every learned result is compared with."""

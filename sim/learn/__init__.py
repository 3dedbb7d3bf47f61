"""Training, evaluation and the controls that stand beside every learned result."""

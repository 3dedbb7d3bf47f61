"""Published tables and figures: the paper's results beside those measured here."""

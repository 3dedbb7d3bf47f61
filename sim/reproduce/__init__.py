"""Published tables and figures: the paper beside what is measured here."""

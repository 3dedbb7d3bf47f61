"""VIn-Loc's tables and figures."""

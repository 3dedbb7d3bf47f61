"""DiffLoc's tables and figures."""

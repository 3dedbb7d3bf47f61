"""TOML files, read with checks and written."""

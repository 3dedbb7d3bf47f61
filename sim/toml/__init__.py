"""Reading TOML files with checks, and writing them."""

"""Fuzzing with atheris, see docs/fuzzing.md; no test by itself, `tests/test_fuzz.py` runs it."""

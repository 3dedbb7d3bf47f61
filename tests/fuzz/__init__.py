"""Fuzzing with atheris, see docs/fuzzing.md; no test by itself, `tests/end_to_end/test_fuzz.py` runs it."""

"""Accounting: what every message costs, what became of it, and checks that everything adds up."""

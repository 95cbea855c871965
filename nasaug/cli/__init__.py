"""Verbs, options, the terminal and exit codes. Knows no algorithm."""

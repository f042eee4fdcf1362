"""A package for type checkers alone, which would take two files named adapter.py for the same module."""

"""Faults on purpose, counted: kills, signals, damaged inputs, failing jobs, long runs. ``make faults`` runs all.

Each module has plain functions of a count and a seed. ``tests/test_faults.py`` calls them with small counts.
"""

"""Evaluations: networks scored on faces, leakage, choices on val, comparison with a baseline."""

"""Metrics with intervals, calibration, comparisons."""

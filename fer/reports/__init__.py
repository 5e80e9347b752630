"""Figures and pages, from plain values and arrays; knows nothing of training."""

"""Figures and pages, from plain values and arrays.

Nothing here knows of training.
"""

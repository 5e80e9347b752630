"""Callbacks: what a training does around its steps."""

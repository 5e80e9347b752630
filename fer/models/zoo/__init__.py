"""Trained networks that the package contains.

README.md lists them.
"""

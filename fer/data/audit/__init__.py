"""Audits: problems of a data set, and suggestions for each face."""

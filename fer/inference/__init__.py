"""Probabilities of faces: views, ensembles."""

"""Losses, optimizers, learning-rate schedules."""

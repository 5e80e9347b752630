"""A search for good settings.

The modules hold what varies, what is proposed, how trials run, and the best trial as an experiment.
"""

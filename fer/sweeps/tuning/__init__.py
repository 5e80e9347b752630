"""A search for good settings: what varies, what is proposed, how trials run, and the best one as an experiment."""

"""Figures and pages, from plain values and arrays; knows nothing of training."""

import logging

# it tells of the cache of fonts that it builds once, which nobody can do anything about
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

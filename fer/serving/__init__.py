"""``fer serve``: a local page and an HTTP interface for pictures.

Nothing here writes or logs a picture.
"""

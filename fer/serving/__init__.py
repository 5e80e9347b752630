"""A local page and an HTTP interface for pictures: ``fer serve``. Nothing here writes or logs a picture."""

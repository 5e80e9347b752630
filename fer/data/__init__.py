"""The data path: readers, splits, cache, data module."""

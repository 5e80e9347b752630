"""Faces: readers, labels, splits, cache, batches, augmentation, audits."""

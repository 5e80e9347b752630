"""Augmentation, MixUp and CutMix, crops, sizes: on whole batches, on any device."""

"""Augmentation, MixUp and CutMix, crops and progressive resizing of whole batches, on any device."""

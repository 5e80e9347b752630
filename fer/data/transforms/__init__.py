"""Changes of whole batches on any device.

They are augmentation, MixUp and CutMix, crops, and progressive resizing.
"""

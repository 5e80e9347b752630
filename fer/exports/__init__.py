"""Export of networks for use without this library.

The formats are ONNX, int8, torch.export and safetensors. Files are checked and timed.
"""

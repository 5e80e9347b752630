"""Export of networks for use without this library: ONNX, int8, torch.export, safetensors; checked and timed."""

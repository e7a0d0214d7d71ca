"""ONNX files, in float32 and int8."""

"""Runs a network on ONNX Runtime, OpenVINO, Paddle Inference, or in Paddle's dynamic graph."""

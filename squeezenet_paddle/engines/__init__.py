"""What computes a network: Paddle, ONNX Runtime, OpenVINO, Paddle Inference."""

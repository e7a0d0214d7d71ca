"""What computes a network: ONNX Runtime, OpenVINO, Paddle Inference, or Paddle itself."""

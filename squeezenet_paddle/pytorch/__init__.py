"""PyTorch's and safetensors' files of weights, read without PyTorch, and torchvision's SqueezeNets."""

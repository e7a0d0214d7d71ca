"""SqueezeNets of torchvision: reads the files of PyTorch and safetensors, without PyTorch."""

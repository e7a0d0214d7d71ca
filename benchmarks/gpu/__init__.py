"""Proves the whole project on a GPU, part by part: `make gpu-check`, `python -m benchmarks.gpu`."""

"""Compressed weights: the file format .sqz. No Paddle here."""

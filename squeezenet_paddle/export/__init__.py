"""Writes model directories as files for other programs."""

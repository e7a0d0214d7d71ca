"""Writes a model as a folder for whoever gets it: files, a program, a model card."""

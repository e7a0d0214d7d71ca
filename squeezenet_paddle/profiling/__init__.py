"""Measuring speed, and tracing where time goes."""

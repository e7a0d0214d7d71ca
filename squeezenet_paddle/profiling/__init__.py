"""Measures speed, and traces where time goes."""

"""Scores, comparisons and reports."""

"""Runs of several processes: starting them, waiting for each other, and sums over all."""

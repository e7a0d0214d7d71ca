"""VisualDL records of a run, and reading and repairing them."""

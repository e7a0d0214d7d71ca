"""VisualDL's files of a training run: what they show, and how they are written and repaired."""

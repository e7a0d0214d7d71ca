"""Training: from list files to a model directory."""

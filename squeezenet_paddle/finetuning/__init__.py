"""Fine-tuning from cached features: what is frozen computes each image once, not every epoch."""

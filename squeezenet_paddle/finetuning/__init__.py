"""Fine-tuning from cached features: what is frozen computes each picture once, not every epoch."""

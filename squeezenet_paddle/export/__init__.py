"""Model directories as files for other programs."""

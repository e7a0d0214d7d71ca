"""From what people have to list files."""

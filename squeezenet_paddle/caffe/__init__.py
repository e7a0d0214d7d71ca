"""Caffe's files: reading, writing, and proving a conversion against an independent importer."""

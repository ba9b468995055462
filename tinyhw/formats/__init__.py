"""Readers and writers of model file formats; each refuses malformed files with one typed error."""

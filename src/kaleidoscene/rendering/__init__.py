"""From scenes and cameras to files."""

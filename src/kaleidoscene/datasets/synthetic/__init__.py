"""Scenes that the package makes itself."""

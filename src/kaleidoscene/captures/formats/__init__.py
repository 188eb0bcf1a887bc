"""Capture formats: one file each."""

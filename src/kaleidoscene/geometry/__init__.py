"""Cameras and their motions; torch only."""

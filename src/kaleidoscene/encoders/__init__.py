"""Frozen 2D encoders of reference images."""

"""Rectified flow; knows no model."""

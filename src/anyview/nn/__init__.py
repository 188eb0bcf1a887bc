"""Operators that families share."""

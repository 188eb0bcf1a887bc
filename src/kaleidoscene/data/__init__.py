"""Captures, batches, shards and synthetic scenes."""

"""Captures written in the formats of other tools, and as training shards."""

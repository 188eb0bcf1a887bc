"""What training reads: scenes in shards, and batches of them."""

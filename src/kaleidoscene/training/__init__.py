"""The training loop; knows tasks, not families."""

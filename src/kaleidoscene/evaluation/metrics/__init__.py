"""What views, cameras, depths and shapes are scored by; every definition that differs has a name of its own."""

"""From views to something that can be looked at from anywhere."""

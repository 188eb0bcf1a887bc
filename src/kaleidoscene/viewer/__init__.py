"""The browser window: what there is, new views of it where one looks, and camera paths."""

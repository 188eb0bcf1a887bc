"""Files to pixels and back: images, videos, lenses, sizes."""

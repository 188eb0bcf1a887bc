"""What lies on disk: images and cameras of one place or object, in any format."""

"""Sources of labeled images, and their one registry."""

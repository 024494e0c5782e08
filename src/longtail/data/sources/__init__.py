"""Where images come from, and the registry of sources."""

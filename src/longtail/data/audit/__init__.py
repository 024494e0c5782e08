"""What `longtail inspect` finds."""

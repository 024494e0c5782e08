"""Findings of `longtail inspect`."""

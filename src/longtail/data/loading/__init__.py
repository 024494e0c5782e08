"""Decoded images: workers, caches and batches."""

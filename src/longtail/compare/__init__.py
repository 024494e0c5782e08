"""Runs side by side: seeds, pairs, differences, ablations, the table."""

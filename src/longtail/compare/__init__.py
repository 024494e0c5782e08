"""Comparison of finished runs: seeds, pairs, differences, ablations, caveats and the table."""

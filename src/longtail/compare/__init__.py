"""Comparison of finished runs: seeds, pairs, differences, ablations and the table, with its caveats."""

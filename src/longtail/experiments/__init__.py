"""Work on whole runs: grids, folds, evaluation, adjustment, analysis."""

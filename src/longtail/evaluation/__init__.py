"""Evaluation: confusion matrix, metrics, intervals, significance, calibration and post-hoc adjustment."""

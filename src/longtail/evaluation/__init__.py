"""Evaluation: one confusion matrix and what follows from it, calibration, and adjustments after training."""

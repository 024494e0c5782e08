"""Adapters to the training loops of other libraries, for losses and for whole classifiers."""

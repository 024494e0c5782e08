"""Inference: reading a trained model back and using it on new images."""

"""Measures of a trained model: embedding, norms, gradients, saturation, margins; arrays in, small tables out."""

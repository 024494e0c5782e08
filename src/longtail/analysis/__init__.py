"""What a model learned: embedding, norms, gradients, saturation, margins; arrays in, small tables out."""

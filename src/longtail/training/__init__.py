"""From a typed configuration to a trained model: two stages, one loop, checkpoints, results."""

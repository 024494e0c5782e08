"""What makes a loss of this package fit into somebody else's training loop, where a line of code is not enough."""

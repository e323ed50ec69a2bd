"""What single units respond to: feature visualization, dataset examples and circuits."""

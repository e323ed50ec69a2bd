"""Training: what to do, on which devices, and what is kept."""

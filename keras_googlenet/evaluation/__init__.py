"""How good networks are on a data set, and where they fail."""

"""Model definitions, one folder a network."""

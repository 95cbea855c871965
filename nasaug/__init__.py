"""nasaug: find the best tiny network under a budget, then train it inside wider ones."""

__version__ = "0.1.0"

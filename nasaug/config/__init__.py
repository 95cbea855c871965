"""Recipes as layers of TOML over a dataclass, and values that change over a training."""

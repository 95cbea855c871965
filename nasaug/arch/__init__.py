"""Architectures without weights: spaces, plans, channel groups, costs, budgets and arch files. Pure Python."""

"""Comparing many trainings: cells, statistics, comparisons and sweeps."""

"""Many trainings, one verdict: cells, statistics, comparisons and sweeps."""

"""Finding the best plan under a budget: the supernet, candidates, finalists and the Pareto front."""

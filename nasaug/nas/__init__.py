"""The best plan under a budget: a supernet, proposals, a judge, finalists, the Pareto front."""

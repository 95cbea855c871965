"""Networks: run a plan or a slice of itself, fold it into plain layers, keep its weights on disk."""

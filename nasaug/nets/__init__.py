"""Networks: run a plan or a slice of it, fold into plain torch layers, save and load weights."""

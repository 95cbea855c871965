"""Pages, tables and plots of results computed elsewhere, and drawings of networks."""

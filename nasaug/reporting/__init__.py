"""Pages, tables and plots of results computed elsewhere."""

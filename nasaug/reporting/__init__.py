"""Pages and plots of results that others have worked out."""

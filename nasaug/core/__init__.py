"""What every room may use: errors, units, files, signals, streams and progress. Knows nothing of networks."""

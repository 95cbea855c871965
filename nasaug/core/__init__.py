"""Utilities that every room may import: errors, units, files, signals, streams, progress. Independent of networks."""

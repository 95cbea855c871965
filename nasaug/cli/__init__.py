"""The command line: verbs, options, terminal output and exit codes. Contains no algorithms."""

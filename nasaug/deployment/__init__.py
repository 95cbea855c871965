"""A trained net in use: predictions from a run, and files that other programs run, each compared with the net."""

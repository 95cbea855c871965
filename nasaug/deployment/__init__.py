"""A trained net in use: loaded from its run, asked about images."""

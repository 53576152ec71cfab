"""The order of things: which task runs when, how often it is retried, and what it is called."""

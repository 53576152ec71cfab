"""The verbs: each file reads, calls ``model``, writes, and returns a small record."""

"""Segmenting a new patient: ``run.py`` is the way in."""

"""Probing a model besides its answers: what it memorised, and how it fits."""

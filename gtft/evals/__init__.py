"""Evaluation: items, checks that run code, generation, figures, the verdict."""

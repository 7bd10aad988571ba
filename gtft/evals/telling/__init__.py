"""Telling: figures, tests, the verdict and its pages, comparisons."""

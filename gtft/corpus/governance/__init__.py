"""Whose data it is, what may be used, what was taken back, and how a corpus travels."""

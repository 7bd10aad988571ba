"""Beads: their states and legal moves, and the ledger that keeps them."""

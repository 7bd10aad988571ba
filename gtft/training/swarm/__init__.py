"""Training with peers: only adapter weights are exchanged (Hivemind)."""

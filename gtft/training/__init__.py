"""Training: the nano base, rows and masks, QLoRA, checkpoints. What a run leaves is an adapter."""

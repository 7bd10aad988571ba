"""Asking: candidates, prompts, decoding, the log of answers."""

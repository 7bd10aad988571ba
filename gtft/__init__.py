"""gtft: fine-tuning for Gas Town, as bead-tracked jobs."""

__version__ = "0.1.0"

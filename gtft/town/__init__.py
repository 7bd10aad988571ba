"""The town around gtft: where it is, its rigs and its Dolt server, its mail, what gtft installs into it."""

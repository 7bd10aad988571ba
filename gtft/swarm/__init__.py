"""A swarm on paper: keys, the signed member file, terms, seats and reports. No torch, no network."""

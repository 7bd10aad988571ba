"""Models: what is registered, where it comes from, and the card that says so."""

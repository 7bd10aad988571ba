"""Who a session was, what became of it, and what of it is noise."""

"""The store: gtft's own tables, and `Store`, the only speaker of SQL for them."""

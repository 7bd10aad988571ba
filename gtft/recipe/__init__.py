"""Recipes: formula TOML to a typed, resolved, hashed ``Recipe``; every mistake told at once.

``formula`` reads a file, ``lint`` judges it, ``resolve`` fills it in; ``keys`` is the schema as a table.
"""

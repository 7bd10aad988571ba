"""Redaction: secrets become typed placeholders, personal data stable pseudonyms; a second engine reads after it."""

"""From a town's history to a corpus: read, link, redact, segment, deduplicate, split, snapshot."""

"""A model in other formats: merged, GGUF, Ollama; and the proof that each answers as the adapter did."""

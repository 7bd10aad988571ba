"""Answering over HTTP with registered models: engines, the OpenAI and Anthropic protocols, routes of roles."""

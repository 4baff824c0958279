"""Serve a model over HTTP as OpenAI's servers are spoken to: chat, images, responses."""

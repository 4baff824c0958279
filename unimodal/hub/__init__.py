"""Hugging Face checkpoints in and out, and the growth of vocabularies."""

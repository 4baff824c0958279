"""Scores of a model or a tokenizer, every prediction kept."""

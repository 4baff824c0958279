"""Evaluators: what a model or a tokenizer is asked, how it is judged and summed up."""

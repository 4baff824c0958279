"""Training of image tokenizers and models, from shards."""

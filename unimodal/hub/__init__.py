"""Read and write Hugging Face checkpoints, and grow their vocabularies."""

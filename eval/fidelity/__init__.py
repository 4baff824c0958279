"""How images compare: with those of a reference, with training images, with their prompts."""

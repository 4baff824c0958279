"""Image heads: how an image is predicted, learned and drawn."""

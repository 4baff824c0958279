"""Networks that turn images into latent vectors and back, each a config, an encoder, a decoder."""

"""Latent vectors <-> codes: what stands between the encoder and the decoder of an image tokenizer.

A quantizer reads latent vectors, float (B, h, w, D), and gives `Quantized`: the vectors that the
decoder reads, their codes, and losses. `quantizer.py` has the interface, `config.py` builds one.
A codebook (`codebook.py`) gives each vector one code: `fsq.py`, `lfq.py`, `bsq.py`, `vq.py`. The
others combine codebooks: `groups.py`, `residual.py`, `scales.py`.
"""

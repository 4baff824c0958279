"""Shapes of small image tokenizers."""

from unimodal.tokenizer.autoencoder import TokenizerConfig
from unimodal.tokenizer.autoencoders.patches import PatchesConfig
from unimodal.tokenizer.quantizers.config import FsqConfig, QuantizerConfig


def of_patches(levels: tuple[int, ...] = (8, 8, 8, 8), **patches: int) -> TokenizerConfig:
    """FSQ with these levels on patches, whose settings are given by name."""
    return TokenizerConfig(
        quantizer=QuantizerConfig(fsq=FsqConfig(levels)), patches=PatchesConfig(**patches)
    )

"""VQGAN as Chameleon, Anole, Lumina-mGPT and Liquid use it, and as LlamaGen and Janus do.

Esser et al., arXiv 2012.09841 (network); Gafni et al., "Make-A-Scene" (arXiv 2203.13131), whose
tokenizer is Chameleon's (arXiv 2405.09818, sec. 2.1); Sun et al., "LlamaGen" (arXiv 2406.06525,
sec. 3.1), whose tokenizer is Janus' and compares vectors by their angle.

`ChameleonVQVAE` of transformers has no decoder, and nor have checkpoints made for it: such a
tokenizer reads images and draws none.
"""

from dataclasses import dataclass

import torch
from torch import nn

from .codebook import Codebook
from .published import PublishedTokenizer
from .pyramid import Decoder, Encoder, PyramidConfig


@dataclass(frozen=True)
class VqganConfig(PyramidConfig):
    """The shape of a VQGAN; the defaults are Chameleon's."""

    is_normalised: bool = False
    """Whether latent vectors and codes have length one (LlamaGen, Janus)."""
    middle_attention: bool = True
    has_decoder: bool = True


class Vqgan(PublishedTokenizer):
    """Encodes images as codes of a VQGAN, and decodes them where it has a decoder."""

    kind = "vqgan"
    config_class = VqganConfig
    config: VqganConfig

    def _build(self) -> None:
        config = self.config
        self.encoder = Encoder(config, config.middle_attention)
        self.quant_conv = nn.Conv2d(config.latent_width, config.code_width, 1)
        self.quantize = Codebook(config.num_codes, config.code_width, config.is_normalised)
        if config.has_decoder:
            self.post_quant_conv = nn.Conv2d(config.code_width, config.latent_width, 1)
            self.decoder = Decoder(config, config.middle_attention)

    @property
    def decodes(self) -> bool:
        """Return whether the checkpoint stored a decoder."""
        return self.config.has_decoder

    def _latents(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.quant_conv(self.encoder(images_BCHW))

    def _images(self, vectors_BDhw: torch.Tensor) -> torch.Tensor:
        if not self.config.has_decoder:
            raise ValueError(
                "this image tokenizer reads images and draws none: its checkpoint stores no decoder"
                " (as facebook/chameleon-7b); take one that holds decoder.* too, such as Anole's"
            )
        return self.decoder(self.post_quant_conv(vectors_BDhw))

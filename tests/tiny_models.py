"""Models of random weights that need no training."""

import torch
from checkpoints import CARD
from tiny_tokenizers import of_patches

from unimodal.architecture import Architecture
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.transformer import Transformer, TransformerConfig
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary

WORDS = ["draw two red circles", "make it blue", "how many stars are there?", "here it is"]


def tiny(**shape: int) -> Model:
    """A model of random weights: 64 codes, a canvas of 16 x 24 pixels, 512 positions."""
    text = TextTokenizer.train(WORDS, 280)
    tokenizer = ImageTokenizer(
        of_patches(levels=(4, 4, 4), encoder_width=8, decoder_width=8, num_blocks=1, pixel_width=4)
    ).eval()
    vocabulary = Vocabulary.new(text.num_ids, tokenizer.num_codes)
    config = TransformerConfig(num_ids=vocabulary.size, max_positions=512, **shape)
    return Model(
        transformer=UnifiedModel(Architecture(config, vocabulary)).eval(),
        text_tokenizer=text,
        image_tokenizer=tokenizer,
        sampling=Sampling(text_temperature=1.0, max_text_tokens=24),
        context=512,
        grid=Grid(3, 2),
        card=CARD,
        hash="0" * 64,
    )


def lively(config: TransformerConfig) -> Transformer:
    """Random weights that bfloat16 holds, large enough for every part to matter."""
    transformer = Transformer(config, seed=3).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in transformer.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_((weight + 0.2 * noise).bfloat16().float())
    return transformer

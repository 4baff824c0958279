"""Tiny models of random weights with the head `masked`, and an oracle that reads rows at once."""

from dataclasses import replace

import torch
from tiny_models import tiny

from unimodal.architecture import Architecture, ImageConfig
from unimodal.attention import DenseAttention
from unimodal.heads.mask_schedule import MaskSchedule
from unimodal.heads.masked import MASK
from unimodal.model import Model
from unimodal.sequence import Batch, Row, Sequence, span_mask
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary


def masked_model(schedule: MaskSchedule, num_codes: int = 64, addresses: bool = True) -> Model:
    """Untied, with rows of unequal lengths, so that its distributions are far from uniform."""
    base = tiny(width=32, num_layers=2, num_heads=4, num_kv_heads=2, head_width=8, mlp_width=64)
    vocabulary = Vocabulary.new(base.vocabulary.num_text, num_codes, (MASK,))
    config = replace(base.transformer.config, num_ids=vocabulary.size, tied_head=False)
    image = ImageConfig("masked", addresses=addresses, masked=schedule)
    transformer = UnifiedModel(Architecture(config, vocabulary, image)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if parameter.ndim == 2 and "layernorm" not in name:
                scale = 0.5 if name.startswith("lm_head") else 0.3
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return replace(base, transformer=transformer)


def rows_of(sequence: Sequence) -> Batch:
    return Batch.stack([Row.pack([sequence], len(sequence), 0)])


def hidden_of(model: Model, sequence: Sequence) -> torch.Tensor:
    """The hidden vectors (T, D) of a sequence that is read at once, under the dense mask."""
    batch = rows_of(sequence)
    attend = DenseAttention(span_mask(batch.doc, batch.block, batch.private))
    return model.transformer.hidden_states(batch, batch.positions, attend)[0]

"""Tiny models of random weights with the head `masked`."""

from dataclasses import replace

from head_models import lively
from tiny_models import tiny

from unimodal.architecture import Architecture, ImageConfig
from unimodal.heads.mask_schedule import MaskSchedule
from unimodal.heads.masked import MASK
from unimodal.model import Model
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary


def masked_model(schedule: MaskSchedule, num_codes: int = 64, addresses: bool = True) -> Model:
    """Untied, with rows of unequal lengths, so that its distributions are far from uniform."""
    base = tiny(width=32, num_layers=2, num_heads=4, num_kv_heads=2, head_width=8, mlp_width=64)
    vocabulary = Vocabulary.new(base.vocabulary.num_text, num_codes, (MASK,))
    config = replace(base.transformer.config, num_ids=vocabulary.size, tied_head=False)
    image = ImageConfig("masked", addresses=addresses, masked=schedule)
    transformer = lively(UnifiedModel(Architecture(config, vocabulary, image)))
    return replace(base, transformer=transformer)

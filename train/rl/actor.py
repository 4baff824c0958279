"""The actor is a whole copy of the live weights that samples replies.

Under ZeRO-3 no rank holds the weights; they are gathered once a rollout, one parameter at a time,
into the actor of each rank. It computes in the dtype of the run's matrix products.
"""

from collections.abc import Sequence

import torch
from torch import nn

from unimodal.architecture import Architecture
from unimodal.bundle import BundleContents
from unimodal.bundle_config import BundleConfig
from unimodal.document import Document, Part
from unimodal.events import ReplyDone
from unimodal.generation import Generation
from unimodal.grammar import Modality
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.unified import UnifiedModel

from ..initial import Fill
from ..zero import whole

Reply = tuple[tuple[Part, ...], tuple[int, ...]]
"""The parts of a reply and its ids."""


def empty(shape: Architecture, device: str, dtype: torch.dtype) -> UnifiedModel:
    """Return a model without values, in evaluation mode and without gradients."""
    with torch.device("meta"):
        model = UnifiedModel(shape)
    return model.to(dtype).to_empty(device=device).eval().requires_grad_(False)


def filled(shape: Architecture, fill: Fill, device: str) -> UnifiedModel:
    """Return a model whose float32 parameters `fill` gives."""
    model = empty(shape, device, torch.float32)
    for name, parameter in model.named_parameters():
        parameter.copy_(fill(name, tuple(parameter.shape)))
    return model


def actor_of(contents: BundleContents, device: str, dtype: torch.dtype) -> Model:
    """Return a model with a bundle's tokenizers whose weights are yet to be copied."""
    config: BundleConfig = contents.config
    return Model(
        transformer=empty(config.architecture, device, dtype),
        text_tokenizer=contents.text_tokenizer,
        image_tokenizer=contents.image_tokenizer.to(device),
        sampling=config.sampling,
        context=config.context,
        grid=config.grid,
        card=contents.card,
        hash=contents.hash or "",
    )


@torch.no_grad()
def refresh(actor: UnifiedModel, live: nn.Module) -> None:
    """Copy the live weights into the actor; all ranks call it together."""
    for ours, theirs in zip(actor.parameters(), live.parameters(), strict=True):
        with whole(theirs):
            ours.copy_(theirs)


def sampled(
    model: Model,
    documents: Sequence[Document],
    samplings: Sequence[Sampling],
    modality: Modality | None,
    batch: int,
) -> list[Reply]:
    """Return the reply to each document, the images without pixels."""
    generation = Generation(model, batch)
    for document, sampling in zip(documents, samplings, strict=True):
        generation.submit(document, sampling, modality)
    done = {e.request: (e.parts, e.ids) for e in generation.run() if isinstance(e, ReplyDone)}
    return [done[number] for number in range(len(documents))]

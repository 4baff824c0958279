"""Models of other architectures with the same weights: with boxes, and without addresses."""

from dataclasses import replace

from unimodal.model import Model
from unimodal.unified import UnifiedModel


def with_boxes(model: Model, boxes: bool = True) -> Model:
    """Return the same model, of which its bundle would say that it was trained on boxes, or not."""
    architecture = model.transformer.architecture
    told = replace(architecture, image=replace(architecture.image, boxes=boxes))
    transformer = UnifiedModel(told).eval()
    transformer.load_state_dict(model.transformer.state_dict())
    return replace(model, transformer=transformer)


def without_addresses(model: Model) -> Model:
    """Return the model without its embeddings of rows and columns, so that it can be exported."""
    architecture = model.transformer.architecture
    plain = replace(architecture, image=replace(architecture.image, addresses=False))
    transformer = UnifiedModel(plain).eval()
    kept = {name: tensor for name, tensor in model.transformer.state_dict().items()
            if name in transformer.state_dict()}  # fmt: skip
    transformer.load_state_dict(kept)
    return replace(model, transformer=transformer)

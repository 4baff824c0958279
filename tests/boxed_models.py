"""Models whose requests may have boxes, without any training."""

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

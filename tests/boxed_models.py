"""Models whose requests may have boxes, without any training."""

from dataclasses import replace

from unimodal.model import Model
from unimodal.unified import UnifiedModel


def with_boxes(model: Model) -> Model:
    """Return the same model, of which its bundle would say that it was trained on boxes."""
    architecture = model.transformer.architecture
    told = replace(architecture, image=replace(architecture.image, boxes=True))
    transformer = UnifiedModel(told).eval()
    transformer.load_state_dict(model.transformer.state_dict())
    return replace(model, transformer=transformer)

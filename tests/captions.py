"""What a caption of the scenes world claims, and whether a scene agrees."""

from unimodal.data.scenes.wording import Claim, agrees, ground_agrees, read_parts
from unimodal.data.scenes.world import Scene


def read_caption(text: str) -> tuple[Claim, ...] | None:
    """Return the claims of any caption that `caption` can write; None: the text is no caption."""
    parts = read_parts(text)
    return None if parts is None else parts[0]


def caption_agrees(text: str, scene: Scene) -> bool:
    """Tell whether a text is a caption that tells all objects of a scene, and nothing false."""
    parts = read_parts(text)
    if parts is None:
        return False
    claims, ground = parts
    return agrees(claims, scene.objects) and (
        ground is None or ground_agrees(ground, scene.background)
    )

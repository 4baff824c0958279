"""Paint an icon onto a page: in any width, turned, mirrored, tinted in one colour.

In: an icon's RGBA (table.py). Out: the page with it. A tint keeps an icon's light and shade: its
mean lightness takes the colour, darker parts go to black and lighter ones to white.
"""

import numpy as np
from PIL import Image as PILImage

LUMA_3 = np.array((0.299, 0.587, 0.114), dtype=np.float32)  # ITU-R BT.601
MIDDLE = 0.6  # lightness, 0..1, that takes the tint itself
DARKEST = 0.25  # of the tint, where the icon is black
LIGHTEST = 0.75  # of the way from the tint to white, where it is white


def scaled(
    drawing_hw4: np.ndarray, longest: int, turn: float = 0.0, mirror: bool = False
) -> np.ndarray:
    """Return an icon with its longer side of `longest` pixels: float32 (h, w, 4), premultiplied.

    `turn`: degrees, counter-clockwise; the box then grows around it. Colours and opacity are
    0..255.
    """
    height, width = drawing_hw4.shape[:2]
    factor = longest / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    image = PILImage.frombuffer(
        "RGBa", (width, height), drawing_hw4.tobytes(), "raw", "RGBa", 0, 1
    ).resize(size, PILImage.Resampling.BILINEAR)
    if mirror:
        image = image.transpose(PILImage.Transpose.FLIP_LEFT_RIGHT)
    if turn:
        image = image.rotate(turn, PILImage.Resampling.BILINEAR, expand=True)
    flat = np.frombuffer(image.tobytes("raw", "RGBa"), np.uint8)
    return flat.reshape(image.height, image.width, 4).astype(np.float32)


def tinted(icon_hw4: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    """Return a premultiplied icon, float32 (h, w, 4), in shades of one colour (sRGB, 0..255)."""
    alpha_hw1 = icon_hw4[:, :, 3:]
    light_hw1 = (icon_hw4[:, :, :3] @ LUMA_3)[:, :, None] / np.maximum(alpha_hw1, 1)
    mean = float((light_hw1 * alpha_hw1).sum() / max(float(alpha_hw1.sum()), 1.0))
    light_hw1 = (light_hw1 + (MIDDLE - mean)).clip(0, 1)
    colour_3 = np.array(colour, dtype=np.float32)
    dark_hw3 = colour_3 * (DARKEST + (1 - DARKEST) * light_hw1 / MIDDLE)
    above_hw1 = LIGHTEST * (light_hw1 - MIDDLE) / (1 - MIDDLE)
    bright_hw3 = colour_3 + (255 - colour_3) * above_hw1
    shade_hw3 = np.where(light_hw1 < MIDDLE, dark_hw3, bright_hw3)
    return np.concatenate([shade_hw3 * (alpha_hw1 / 255), alpha_hw1], axis=2)


def lay(pixels_HW3: np.ndarray, icon_hw4: np.ndarray, x: float, y: float) -> None:
    """Lay a premultiplied icon with its centre at (x, y), fractions of the canvas, in place.

    Its corner stands on a whole pixel; what reaches beyond the canvas is cut off.
    """
    height, width = icon_hw4.shape[:2]
    top, left = (
        round(y * pixels_HW3.shape[0] - height / 2),
        round(x * pixels_HW3.shape[1] - width / 2),
    )
    rows = slice(max(0, top), min(pixels_HW3.shape[0], top + height))
    columns = slice(max(0, left), min(pixels_HW3.shape[1], left + width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    part_hw4 = icon_hw4[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
    region_hw3 = pixels_HW3[rows, columns]
    region_hw3 *= 1 - part_hw4[:, :, 3:] / 255
    region_hw3 += part_hw4[:, :, :3]

"""Colours of every kind, by the names that people use: of pages, pens and shapes at large."""

import numpy as np

from ..scenes.world import COLOURS, GROUNDS

HUES: dict[str, tuple[int, int, int]] = {  # sRGB, 0..255
    **COLOURS,
    **GROUNDS,
    "crimson": (190, 20, 60), "maroon": (115, 15, 25), "scarlet": (255, 36, 0),
    "brick red": (170, 65, 50), "rose": (235, 80, 120), "salmon": (250, 140, 120),
    "coral": (255, 127, 80), "peach": (255, 205, 165), "apricot": (250, 185, 120),
    "gold": (225, 175, 40), "mustard": (205, 165, 50), "amber": (255, 191, 0),
    "lemon": (255, 245, 110), "cream": (255, 250, 225), "ivory": (250, 248, 235),
    "beige": (225, 215, 190), "tan": (205, 170, 125), "chocolate": (85, 45, 25),
    "olive": (125, 125, 35), "lime": (150, 225, 50), "emerald": (30, 180, 110),
    "forest green": (25, 95, 45), "dark green": (15, 75, 35), "turquoise": (60, 210, 200),
    "teal": (15, 125, 125), "cyan": (40, 215, 240), "light blue": (165, 210, 245),
    "navy": (20, 30, 90), "royal blue": (50, 95, 215), "dark blue": (15, 20, 120),
    "indigo": (70, 30, 135), "violet": (150, 80, 215), "lilac": (200, 160, 215),
    "plum": (130, 60, 110), "magenta": (220, 40, 180), "fuchsia": (240, 50, 190),
    "light grey": (215, 215, 215), "dark grey": (80, 80, 85), "silver": (190, 192, 198),
    "charcoal": (50, 52, 58), "slate": (95, 110, 125),
}  # fmt: skip
_TABLE_N3 = np.array(list(HUES.values()), dtype=np.float32)


def any_hue(rng: np.random.Generator) -> np.ndarray:
    """Draw a colour, float32 (3,) in 0..255: mostly a named one, a little off, else any."""
    if rng.random() < 0.2:
        return (255 * rng.random(3)).astype(np.float32)
    off = rng.normal(0, 9, 3).astype(np.float32)
    return (_TABLE_N3[rng.integers(len(_TABLE_N3))] + off).clip(0, 255)


def away_from(rng: np.random.Generator, ground_3: np.ndarray, least: float = 70) -> np.ndarray:
    """Draw a colour at least `least` from another one (Euclidean, sRGB), within a few tries."""
    for _ in range(6):
        found = any_hue(rng)
        if np.square(found - ground_3).sum() >= least**2:
            break
    return found

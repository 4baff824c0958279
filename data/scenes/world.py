"""A procedural world: coloured shapes on a soft background, with the graph of every image known.

In: (seed, index). Out: a `Scene` (the graph, sizes and places in fractions of the canvas) and its
image.

1. `scene` draws the background, the number of objects, their attributes and their places from a
   counter-based generator keyed by (seed, index), so a graph is the same whatever the canvas, the
   order or the machine.
2. `arrange` places objects so that their boxes keep a gap and stay inside the canvas.
3. `render` paints the background and then each object with the coverage of a pixel by the object,
   taken from the signed distance to its outline (one pixel of soft edge).

Costs about 0.4 ms a scene and core at 64 pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "heart", "ring")
COLOURS = {  # sRGB, 0..255
    "red": (220, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (250, 225, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "purple": (130, 50, 170),
    "pink": (250, 120, 190),
    "brown": (120, 70, 30),
    "black": (20, 20, 20),
    "white": (250, 250, 250),
}
SIZES = {"small": 0.25, "medium": 0.33, "large": 0.42}  # width in fractions of the canvas
GROUNDS = {  # background colours: soft, and far from every colour of an object
    "grey": (150, 150, 150),
    "sand": (205, 180, 140),
    "sky": (140, 190, 225),
    "mint": (150, 210, 175),
    "lavender": (185, 170, 225),
}
BACKGROUNDS = ("plain", "graded", "striped")
DIRECTIONS = ("horizontal", "vertical")  # colour changes that way (graded), stripes run (striped)
NUM_STRIPES = 8  # two colours in turn: a period of 16 pixels on a canvas of 64
MARGIN = 1 / 32  # least distance of an object from the border, half the least gap of two
CANVASES = (64, 512)  # least and most pixels a side

Attributes = tuple[str, str, str]
"""Shape, colour and size of an object."""


@dataclass(frozen=True)
class SceneObject:
    """A shape on the canvas.

    `x` (to the right) and `y` (down) are the centre of its box in fractions of the canvas.
    """

    shape: str
    colour: str
    size: str
    x: float
    y: float

    @property
    def attributes(self) -> Attributes:
        """Return shape, colour and size."""
        return self.shape, self.colour, self.size

    @property
    def width(self) -> float:
        """Return the width of the box in fractions of the canvas."""
        return SIZES[self.size]


@dataclass(frozen=True)
class Background:
    """A background of one kind of BACKGROUNDS.

    `plain` has only the colour `first`; `graded` runs from `first` to `second`; `striped`
    alternates them.
    """

    kind: str
    first: str
    second: str | None = None
    direction: str | None = None


@dataclass(frozen=True)
class Scene:
    """A background and objects that do not overlap."""

    background: Background
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True)
class World:
    """How full scenes are: 1 to `max_objects` objects."""

    max_objects: int


SMALL = World(max_objects=4)  # canvases of 64 pixels and more
LARGE = World(max_objects=6)  # canvases of 128 pixels and more


def world_of(canvas: int, max_objects: int | None = None) -> World:
    """Return the world of a canvas: up to 4 objects, from 128 pixels a side up to 6; or fewer.

    ValueError for a `max_objects` that the canvas has no room for.
    """
    whole = SMALL if canvas < 128 else LARGE
    if max_objects is None:
        return whole
    if not 1 <= max_objects <= whole.max_objects:
        raise ValueError(
            f"max_objects {max_objects}: 1 to {whole.max_objects} on a canvas of {canvas} pixels"
        )
    return World(max_objects)


def generator(seed: int, index: int, part: int = 0) -> np.random.Generator:
    """Return the counter-based generator of (seed, index, part), non-negative integers."""
    key = np.array([seed, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, part]))


@cache
def is_held_out(first: tuple[str, str], second: tuple[str, str]) -> bool:
    """Return whether two (shape, colour) are held out: training never shows them together.

    It is so for a fifth of the unordered pairs.
    """
    i, j = sorted(
        SHAPES.index(s) * len(COLOURS) + list(COLOURS).index(c) for s, c in (first, second)
    )
    # Fibonacci hashing spreads over the pairs (Knuth, The Art of Computer Programming 3, sec. 6.4).
    mixed = (i * 80 + j + 1) * 0x9E3779B97F4A7C15 % 2**64
    return (mixed >> 32) % 5 == 0


def has_held_out_pair(objects: Sequence[SceneObject]) -> bool:
    """Return whether any two of the objects are a held-out pair."""
    return any_held_out([(obj.shape, obj.colour) for obj in objects])


def any_held_out(shape_colours: Sequence[tuple[str, str]]) -> bool:
    """Return whether any two of these (shape, colour) are a held-out pair."""
    return any(is_held_out(a, b) for a, b in combinations(shape_colours, 2))


def scene(seed: int, index: int, world: World = SMALL, seen_only: bool = False) -> Scene:
    """Draw the scene of (seed, index): count, attributes and background are each uniform.

    `seen_only` draws again every object that would form a held-out pair (as training must).
    """
    rng = generator(seed, index)
    ground = background(rng)
    count = int(rng.integers(1, world.max_objects + 1))
    while True:
        drawn: list[Attributes] = []
        while len(drawn) < count:
            attributes = random_attributes(rng)
            if seen_only and any(is_held_out(attributes[:2], other[:2]) for other in drawn):
                continue
            drawn.append(attributes)
        objects = arrange(rng, drawn)
        if objects is not None:
            return Scene(ground, objects)


def background(rng: np.random.Generator) -> Background:
    """Draw a background, uniform over kinds, colours and directions."""
    kind = BACKGROUNDS[rng.integers(3)]
    first, second = (list(GROUNDS)[k] for k in rng.permutation(len(GROUNDS))[:2])
    if kind == "plain":
        return Background(kind, first)
    return Background(kind, first, second, DIRECTIONS[rng.integers(2)])


def random_attributes(rng: np.random.Generator) -> Attributes:
    """Draw shape, colour and size, each uniform."""
    shape, colour, size = rng.integers((len(SHAPES), len(COLOURS), len(SIZES)))
    return SHAPES[shape], list(COLOURS)[colour], list(SIZES)[size]


def arrange(
    rng: np.random.Generator,
    wanted: Sequence[Attributes],
    fixed: Sequence[SceneObject] = (),
    num_tries: int = 8,
) -> tuple[SceneObject, ...] | None:
    """Place objects with the wanted attributes, in that order, beside the `fixed` ones.

    A layout that does not come about in `num_tries` tries is tried again with its first largest
    object one size smaller, and so on; None when even small ones do not fit.
    """
    current = list(wanted)
    while True:
        for _ in range(num_tries):
            objects = _place_all(rng, current, fixed)
            if objects is not None:
                return objects
        names = list(SIZES)
        largest = max(names.index(size) for _, _, size in current)
        if largest == 0:
            return None
        at = next(k for k, attributes in enumerate(current) if attributes[2] == names[largest])
        current[at] = (*current[at][:2], names[largest - 1])


def _place_all(
    rng: np.random.Generator,
    wanted: Sequence[Attributes],
    fixed: Sequence[SceneObject],
) -> tuple[SceneObject, ...] | None:
    """Place each object at random, the largest first: they find room least. None if one fails."""
    placed: dict[int, SceneObject] = {}
    for k in sorted(range(len(wanted)), key=lambda k: -SIZES[wanted[k][2]]):
        obj = place(rng, wanted[k], [*fixed, *placed.values()])
        if obj is None:
            return None
        placed[k] = obj
    return tuple(placed[k] for k in range(len(wanted)))


def place(
    rng: np.random.Generator,
    attributes: Attributes,
    others: Sequence[SceneObject],
    num_spots: int = 32,
) -> SceneObject | None:
    """Place an object at the first of `num_spots` uniform spots where it overlaps no other.

    None when all are taken.
    """
    edge = SIZES[attributes[2]] / 2 + MARGIN
    spots_n2 = rng.uniform(edge, 1 - edge, size=(num_spots, 2))
    free = np.ones(num_spots, dtype=bool)
    for other in others:
        apart = np.abs(spots_n2 - (other.x, other.y)).max(axis=1)
        free &= apart >= (SIZES[attributes[2]] + other.width) / 2 + 2 * MARGIN
    if not free.any():
        return None
    x, y = spots_n2[free.argmax()]
    return SceneObject(*attributes, float(x), float(y))


def fits(obj: SceneObject, others: Sequence[SceneObject]) -> bool:
    """Return whether the object is inside the canvas and keeps its gap from the others."""
    edge = obj.width / 2 + MARGIN
    if not (edge <= obj.x <= 1 - edge and edge <= obj.y <= 1 - edge):
        return False
    return all(
        max(abs(obj.x - o.x), abs(obj.y - o.y)) >= (obj.width + o.width) / 2 + 2 * MARGIN
        for o in others
    )


def distance(shape: str, x: np.ndarray, y: np.ndarray, half: float) -> np.ndarray:
    """Return the signed distance to the outline of a shape, negative inside.

    `half` is the half-width of the shape's box; x, y are offsets from the box's centre (y down),
    broadcast together, in the unit of `half`. The distance is exact near edges and a bound near
    corners, which is all that coverage needs. ValueError for an unknown shape.
    """
    if shape not in _OUTLINES:
        raise ValueError(f"unknown shape {shape!r}: one of {', '.join(SHAPES)}")
    return _OUTLINES[shape](x, y, half)


def _circle(x: np.ndarray, y: np.ndarray, half: float) -> np.ndarray:
    return np.sqrt(x * x + y * y) - half


def _ring(x: np.ndarray, y: np.ndarray, half: float) -> np.ndarray:
    return np.abs(np.sqrt(x * x + y * y) - 0.74 * half) - 0.26 * half


def _square(x: np.ndarray, y: np.ndarray, half: float) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.9 * half


def _diamond(x: np.ndarray, y: np.ndarray, half: float) -> np.ndarray:
    return (np.abs(x) + np.abs(y) - half) * np.sqrt(0.5)


def _triangle(x: np.ndarray, y: np.ndarray, half: float) -> np.ndarray:
    side = np.sqrt(0.75) * np.abs(x) - 0.5 * y - np.sqrt(0.1875) * half
    return np.maximum(side, y - np.sqrt(0.75) * half)


def _cross(x: np.ndarray, y: np.ndarray, half: float) -> np.ndarray:
    ax, ay, arm = np.abs(x), np.abs(y), 0.34 * half
    return np.minimum(np.maximum(ax - half, ay - arm), np.maximum(ax - arm, ay - half))


def _star(x: np.ndarray, y: np.ndarray, half: float) -> np.ndarray:
    """Return the distance to a pentagram: the points inside at least four of five half-planes."""
    radius = half / np.sin(0.4 * np.pi)
    y = y - 0.5 * (1 - np.cos(0.2 * np.pi)) * radius  # from the box's centre to the star's
    angles_5 = np.arange(5) * 0.4 * np.pi
    lines = [x * np.sin(a) - y * np.cos(a) for a in angles_5]
    first, second = np.maximum(lines[0], lines[1]), np.minimum(lines[0], lines[1])
    for line in lines[2:]:
        second = np.maximum(second, np.minimum(first, line))
        first = np.maximum(first, line)
    return second - radius * np.cos(0.4 * np.pi)  # the second largest distance to a line


def _heart(x: np.ndarray, y: np.ndarray, half: float) -> np.ndarray:
    """Return the distance to a square on its corner with a half disc on each upper side."""
    reach = half / (0.5 + np.sqrt(0.5))  # from the square's centre to its corners
    ax, down = np.abs(x), y - (np.sqrt(0.5) - 0.5) / 2 * reach
    square = (ax + np.abs(down) - reach) * np.sqrt(0.5)
    disc = np.hypot(ax - reach / 2, down + reach / 2) - reach * np.sqrt(0.5)
    return np.minimum(square, disc)


_OUTLINES = dict(
    zip(SHAPES, (_circle, _square, _triangle, _diamond, _star, _cross, _heart, _ring), strict=True)
)


def coverage(
    shape: str, width: float, x: float, y: float, canvas: int
) -> tuple[np.ndarray, slice, slice]:
    """Return how much of each pixel a shape covers: (float32 in [0, 1], its rows, its columns).

    The rows and columns are those around the shape's box; width, x, y are in fractions of the
    canvas, canvas in pixels.
    """
    half, cx, cy = width * canvas / 2, x * canvas, y * canvas
    rows = slice(max(0, int(cy - half) - 1), min(canvas, int(cy + half) + 2))
    columns = slice(max(0, int(cx - half) - 1), min(canvas, int(cx + half) + 2))
    dy_h1 = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5 - cy)
    dx_1w = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] + np.float32(0.5 - cx)
    return (0.5 - distance(shape, dx_1w, dy_h1, half)).clip(0, 1), rows, columns


@cache
def paint(ground: Background, canvas: int) -> np.ndarray:
    """Paint the background alone: float32 (canvas, canvas, 3) in 0..255, read-only."""
    first = np.array(GROUNDS[ground.first], dtype=np.float32)
    second = np.array(GROUNDS[ground.second or ground.first], dtype=np.float32)
    if ground.kind == "striped":  # the mean of the alternating stripes over each pixel
        mass = _stripe_mass(np.arange(canvas + 1) * NUM_STRIPES / canvas)
        mix_n = np.diff(mass) * canvas / NUM_STRIPES
    else:
        mix_n = (np.arange(canvas) + 0.5) / canvas
    line_n3 = first + (second - first) * mix_n[:, None].astype(np.float32)
    across = ground.direction == ("vertical" if ground.kind == "striped" else "horizontal")
    image = np.broadcast_to(line_n3[None] if across else line_n3[:, None], (canvas, canvas, 3))
    image.flags.writeable = False
    return image


def _stripe_mass(at: np.ndarray) -> np.ndarray:
    """Integrate, from 0, the wave that is 0 on even stripes and 1 on odd ones."""
    return np.floor(at / 2) + np.maximum(at % 2 - 1, 0)


def render(shown: Scene, canvas: int = 64) -> np.ndarray:
    """Render a scene: uint8 (canvas, canvas, 3).

    ValueError for a canvas outside 64 to 512 pixels a side.
    """
    if not CANVASES[0] <= canvas <= CANVASES[1]:
        raise ValueError(f"canvas of {canvas} pixels: give {CANVASES[0]} to {CANVASES[1]}")
    pixels_HW3 = np.array(paint(shown.background, canvas))
    for obj in shown.objects:
        cover_hw, rows, columns = coverage(obj.shape, obj.width, obj.x, obj.y, canvas)
        region_hw3 = pixels_HW3[rows, columns]
        colour_3 = np.array(COLOURS[obj.colour], dtype=np.float32)
        region_hw3 += cover_hw[:, :, None] * (colour_3 - region_hw3)
    return (pixels_HW3 + 0.5).astype(np.uint8)

"""The reader of scenes: right on renders and mild damage, silent on what is no scene."""

from dataclasses import replace

import numpy as np
import pytest

from unimodal.data.scenes.damage import blurred, compressed, measure, noisy
from unimodal.data.scenes.reading import Unreadable, label, read_scene, same_scene
from unimodal.data.scenes.world import (
    COLOURS,
    LARGE,
    SHAPES,
    SIZES,
    Background,
    Scene,
    SceneObject,
    coverage,
    paint,
    render,
    scene,
)

GREY = Background("plain", "grey")
LOOKS = [(shape, size) for shape in SHAPES for size in SIZES]


def alone(seed: int, shape: str = "circle", size: str = "medium") -> tuple[Scene, np.ndarray]:
    """A scene of one object and what it covers of each pixel, float (64, 64)."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0.3, 0.7, size=2)
    colour = list(COLOURS)[rng.integers(len(COLOURS))]
    background = scene(seed, 0).background
    cover_HW = np.zeros((64, 64), dtype=np.float32)
    cover_hw, rows, columns = coverage(shape, SIZES[size], x, y, 64)
    cover_HW[rows, columns] = cover_hw
    return Scene(background, (SceneObject(shape, colour, size, x, y),)), cover_HW


def decoded(background: Background, cover_HW: np.ndarray, colour: str | tuple) -> np.ndarray:
    """An image of 64 pixels: a background and, where covered, a colour."""
    ground_HW3 = paint(background, 64)
    rgb_3 = np.array(COLOURS[colour] if isinstance(colour, str) else colour)
    mixed_HW3 = ground_HW3 + cover_HW[:, :, None] * (rgb_3 - ground_HW3)
    return (mixed_HW3 + 0.5).astype(np.uint8)


def cut(cover_HW: np.ndarray, part: float, angle: float) -> np.ndarray:
    """What is left of a covered area when a straight cut takes `part` of it away."""
    y, x = np.mgrid[:64, :64]
    across = x * np.cos(angle) + y * np.sin(angle)
    order = np.argsort(across.ravel())
    mass = np.cumsum(cover_HW.ravel()[order])
    edge = across.ravel()[order][np.searchsorted(mass, (1 - part) * mass[-1])]
    return cover_HW * np.clip(edge - across + 0.5, 0, 1)


def test_reads_500_renders() -> None:
    rendered = next(measure(500, seed=101))
    assert rendered.num_right == 500, rendered


@pytest.mark.parametrize("canvas", [96, 128, 200, 256, 512])
def test_reads_other_canvases(canvas: int) -> None:
    rendered = next(measure(20, seed=103, canvas=canvas))
    assert rendered.num_right == 20, rendered


@pytest.mark.slow
@pytest.mark.parametrize(
    "canvas, num_samples", [(64, 10_000), (96, 2000), (128, 2000), (256, 1000), (512, 1000)]
)
def test_reads_nearly_all_renders(canvas: int, num_samples: int) -> None:
    rendered = next(measure(num_samples, seed=102, canvas=canvas))
    assert rendered.num_right >= 0.999 * num_samples, rendered


@pytest.mark.slow
def test_reads_damaged_renders() -> None:
    for errors in measure(1000, seed=104):
        least = 0.98 if errors.damage == "JPEG, quality 50" else 0.995
        assert errors.num_right >= least * errors.num_samples, errors


@pytest.mark.parametrize(
    "damage",
    [
        lambda image, index: blurred(image, 1.0),
        lambda image, index: noisy(image, 20, 105, index),
        lambda image, index: compressed(image, 75),
    ],
    ids=["blur", "noise", "jpeg"],
)
def test_reads_through_mild_damage(damage) -> None:
    truths = [scene(105, index) for index in range(60)]
    found = [read_scene(damage(render(truth), index)) for index, truth in enumerate(truths)]
    right = [isinstance(f, Scene) and same_scene(t, f) for t, f in zip(truths, found, strict=True)]
    assert sum(right) >= 59


@pytest.mark.parametrize("shape, size", LOOKS)
def test_centres_are_exact_to_a_fifth_of_a_pixel(shape: str, size: str) -> None:
    for seed in range(4):
        truth, _ = alone(seed, shape, size)
        found = read_scene(render(truth))
        assert isinstance(found, Scene) and same_scene(truth, found, tolerance_px=0.2), found


def test_reads_the_background_alone() -> None:
    for background in {scene(106, index).background for index in range(40)}:
        assert read_scene(render(Scene(background, ()))) == Scene(background, ())


def test_no_shape_is_read_when_half_erased() -> None:
    """Half a object is never the whole; half a triangle may be a smaller triangle."""
    num_read = 0
    for seed in range(120):
        shape, size = LOOKS[seed % len(LOOKS)]
        truth, cover_HW = alone(seed, shape, size)
        left_HW = cut(cover_HW, 0.5, angle=0.7 * seed)
        found = read_scene(decoded(truth.background, left_HW, truth.objects[0].colour))
        if isinstance(found, Scene):
            num_read += 1
            assert (found.objects[0].shape, found.objects[0].size) != (shape, size)
    assert num_read <= 6


@pytest.mark.parametrize("part", [0.15, 0.25, 0.35])
def test_few_shapes_are_read_with_a_part_erased(part: float) -> None:
    num_read = 0
    for seed in range(120):
        truth, cover_HW = alone(seed, *LOOKS[seed % len(LOOKS)])
        left_HW = cut(cover_HW, part, angle=0.7 * seed)
        image = decoded(truth.background, left_HW, truth.objects[0].colour)
        num_read += isinstance(read_scene(image), Scene)
    assert num_read <= 6


@pytest.mark.parametrize("rgb", [(0, 190, 190), (130, 255, 60), (90, 90, 95), (150, 0, 90)])
def test_other_colours_are_unreadable(rgb: tuple[int, int, int]) -> None:
    for shape in SHAPES:
        _, cover_HW = alone(7, shape)
        found = read_scene(decoded(GREY, cover_HW, rgb))
        assert isinstance(found, Unreadable), found


def test_two_colours_in_one_object_are_unreadable() -> None:
    for seed, shape in enumerate(SHAPES):
        truth, cover_HW = alone(seed, shape)
        middle = round(truth.objects[0].x * 64)
        image = decoded(GREY, cover_HW, "red")
        image[:, :middle] = decoded(GREY, cover_HW, "blue")[:, :middle]
        assert isinstance(read_scene(image), Unreadable)


def test_faded_objects_are_unreadable() -> None:
    for seed, shape in enumerate(SHAPES):
        _, cover_HW = alone(seed, shape)
        assert isinstance(read_scene(decoded(GREY, 0.5 * cover_HW, "blue")), Unreadable)


def test_other_shapes_are_unreadable() -> None:
    """Ellipses, hexagons, turned crosses, hearts upside down."""
    y, x = np.mgrid[:64, :64] + 0.5 - 32
    ellipse_HW = np.hypot(x / 1.3, y * 1.3) - 9
    angles = np.arange(6) * np.pi / 3
    hexagon_HW = np.max([x * np.cos(a) + y * np.sin(a) for a in angles], axis=0) - 9
    for outline_HW in (ellipse_HW, hexagon_HW):
        found = read_scene(decoded(GREY, np.clip(0.5 - outline_HW, 0, 1), "green"))
        assert isinstance(found, Unreadable), found
    _, cover_HW = alone(3, "heart")
    assert isinstance(read_scene(decoded(GREY, cover_HW[::-1], "red")), Unreadable)


def test_merged_objects_are_unreadable() -> None:
    for seed, (shape, size) in enumerate(LOOKS):
        truth, _ = alone(seed, shape, size)
        first = truth.objects[0]
        second = replace(first, x=first.x + 0.7 * first.width)
        image = render(Scene(truth.background, (first, second)))
        assert isinstance(read_scene(image), Unreadable)


def test_noise_and_stains_are_unreadable() -> None:
    noise_HW3 = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert isinstance(read_scene(noise_HW3), Unreadable)
    stained = render(scene(0, 0))
    stained[:10, :10] = (255, 0, 255)
    assert isinstance(read_scene(stained), Unreadable)


def test_sizes_out_of_range_are_unreadable_and_other_types_refused() -> None:
    for shape in [(64, 65, 3), (32, 32, 3), (513, 513, 3)]:
        assert isinstance(read_scene(np.zeros(shape, dtype=np.uint8)), Unreadable)
    for wrong in [np.zeros((64, 64), dtype=np.uint8), np.zeros((64, 64, 3))]:
        with pytest.raises(ValueError, match="uint8"):
            read_scene(wrong)


def test_same_scene_ignores_order_and_sees_every_difference() -> None:
    truth = next(s for s in (scene(107, k, LARGE) for k in range(99)) if len(s.objects) == 4)
    assert same_scene(truth, replace(truth, objects=truth.objects[::-1]))
    assert not same_scene(truth, replace(truth, objects=truth.objects[1:]))
    assert not same_scene(truth, replace(truth, objects=truth.objects + truth.objects[:1]))
    assert not same_scene(truth, replace(truth, background=Background("plain", "grey", "sky")))
    first, *rest = truth.objects
    for other in (
        replace(first, shape=next(s for s in SHAPES if s != first.shape)),
        replace(first, colour=next(c for c in COLOURS if c != first.colour)),
        replace(first, size=next(s for s in SIZES if s != first.size)),
    ):
        assert not same_scene(truth, replace(truth, objects=(other, *rest)))


def test_same_scene_pairs_objects_within_the_tolerance() -> None:
    """Two like objects, each near both others: only one assignment works."""
    a, b = (
        Scene(GREY, tuple(SceneObject("star", "red", "small", x, 0.5) for x in places))
        for places in [(0.50, 0.53), (0.52, 0.48)]
    )
    assert same_scene(a, b, tolerance_px=1.5, canvas=64)
    assert not same_scene(a, b, tolerance_px=1.0, canvas=64)
    assert same_scene(a, b, tolerance_px=3.0, canvas=128)


def test_label_matches_a_flood_fill() -> None:
    rng = np.random.default_rng(1)
    for density in (0.2, 0.4, 0.6):
        mask_HW = rng.random((23, 17)) < density
        labels_HW, count = label(mask_HW)
        assert count == labels_HW.max()
        assert np.array_equal(labels_HW > 0, mask_HW)
        assert flood_fill(mask_HW) == parts(labels_HW)


def parts(labels_HW: np.ndarray) -> set[frozenset]:
    """The components of a label image as sets of flat places."""
    names = range(1, labels_HW.max() + 1)
    return {frozenset(np.flatnonzero(labels_HW == name).tolist()) for name in names}


def flood_fill(mask_HW: np.ndarray) -> set[frozenset]:
    """The same by walking from pixel to pixel."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask_HW)}
    found = set()
    while left:
        todo, part = [left.pop()], []
        while todo:
            y, x = todo.pop()
            part.append(y * mask_HW.shape[1] + x)
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo += near
        found.add(frozenset(part))
    return found

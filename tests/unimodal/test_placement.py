"""Layers spread over devices: where they go, what moves, and that nothing else changes.

No GPU is needed: numbers come from cpu:0 and cpu:1, which are different devices until a tensor lies
there; what must move is found by fake tensors, which have no numbers, keep the name of any device,
and are refused by torch where two of these meet.
"""

import base64
import copy
import io
import itertools
from dataclasses import replace
from pathlib import Path

import head_models
import numpy as np
import pytest
import torch
from api_server import IMAGES, serving
from PIL import Image as PILImage
from torch._subclasses.fake_tensor import FakeTensorMode

import unimodal
from unimodal import placing
from unimodal.architecture import Architecture, ImageConfig
from unimodal.branches import Branches, BranchInput
from unimodal.bundle import load, save_bundle
from unimodal.cache import KVCache
from unimodal.memory import free_for_layers
from unimodal.model import Model
from unimodal.placement import AUTO, Placement, devices_of, placed, spread
from unimodal.sampling import Sampling
from unimodal.tokenizer.grid import Grid
from unimodal.unified import UnifiedModel, parameter_shapes

CPUS = [torch.device("cpu", n) for n in range(3)]
FAKE = [torch.device("lazy", n) for n in range(2)]  # of which torch here has no code
GPUS = [torch.device("cuda", n) for n in range(4)]


# --- where layers go ----------------------------------------------------------------------------


def least_left(room: tuple[int, ...], counts: tuple[int, ...]) -> float:
    return min(m / n for m, n in zip(room, counts, strict=True) if n)


def test_the_least_room_of_a_layer_is_the_largest_that_any_placement_has() -> None:
    rng = np.random.default_rng(0)
    for _ in range(150):
        num_layers = int(rng.integers(1, 9))
        room = tuple(int(m) for m in rng.integers(1, 50, rng.integers(1, 4)))
        every = itertools.product(range(num_layers + 1), repeat=len(room))
        best = max(least_left(room, one) for one in every if sum(one) == num_layers)
        counts = spread(num_layers, room)
        assert sum(counts) == num_layers and least_left(room, tuple(counts)) == best


SIZES = {
    "model.embed_tokens.weight": 30, "embedder.rows.weight": 5, "tower.network.a": 5,
    **{f"model.layers.{n}.mlp.{name}_proj.weight": 5 for n in range(12) for name in ("up", "down")},
    "model.norm.weight": 2, "lm_head.weight": 30, "head.project.weight": 8,
}  # fmt: skip


@pytest.mark.parametrize("is_tied", [False, True])
def test_each_part_is_where_there_is_room(is_tied: bool) -> None:
    sizes = {name: size for name, size in SIZES.items() if not (is_tied and "lm_head" in name)}
    free = {GPUS[0]: 120, GPUS[1]: 80, GPUS[2]: 90}
    found = placed(sizes, is_tied, free, fewest=False, beside=10)
    assert found is not None and found.devices == GPUS[:3]
    assert found.start == GPUS[0] and found.end == (GPUS[0] if is_tied else GPUS[2])
    assert sorted(found.layers, key=str) == list(found.layers), "layers follow one another"
    taken = dict.fromkeys(free, 0)
    for name, size in sizes.items():
        taken[found.of(name)] += size
    taken[found.end] += 10
    assert all(taken[device] <= free[device] for device in free)
    layers = {name: found.of(name) for name in sizes if ".layers." in name}
    assert {*layers.values()} == set(GPUS[:3]) and found.of("embedder.rows.weight") == GPUS[0]
    assert found.of("model.norm.weight") == found.of("head.project.weight") == found.end
    borders = list(found.borders)
    assert len(borders) == 3 if is_tied else len(borders) == 2
    assert placed(sizes, is_tied, dict.fromkeys(GPUS[:3], 55), False, 10) is None


def test_as_few_devices_are_taken_as_have_room() -> None:
    total = sum(SIZES.values())
    for room, expected in ((1.3 * total, 1), (0.75 * total, 2), (0.45 * total, 3)):
        found = placed(SIZES, False, dict.fromkeys(GPUS, int(room)), fewest=True)
        assert found is not None and len(found.devices) == expected
        everywhere = placed(SIZES, False, dict.fromkeys(GPUS, int(room)), fewest=False)
        assert everywhere is not None and len(everywhere.devices) == 4
    # What has room for weights, and little more, is taken where there is nothing else.
    found = placed(SIZES, False, {GPUS[0]: total}, fewest=True)
    assert found == Placement.on(GPUS[0], 12) and not found.borders


def test_devices_are_named_once_and_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices_of("cpu") == devices_of(AUTO) == [torch.device("cpu")]
    with pytest.raises(ValueError, match="device cuda:0: 0 GPUs are here"):
        devices_of("cuda:0,cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices_of("cuda:0,cuda:1") == devices_of(GPUS[:2]) == devices_of(AUTO) == GPUS[:2]
    for twice in ("cpu,cpu", "cuda,cuda:0", ""):
        with pytest.raises(ValueError, match="device"):
            devices_of(twice)
    with pytest.raises(ValueError, match="device tpux: write cpu, cuda, cuda:0,cuda:1 or auto"):
        devices_of("tpux")
    with pytest.raises(ValueError, match="device cuda:2: 2 GPUs are here"):
        devices_of(GPUS[:3])


def test_what_has_no_room_is_told_by_device(
    drawing_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {CPUS[0]: 40_000, CPUS[1]: 10_000}
    monkeypatch.setattr(placing, "free_bytes", lambda device: free[device])
    architecture = drawing_model.transformer.architecture
    with pytest.raises(ValueError) as refused:
        placing.place(architecture, "cpu:0,cpu:1", torch.float32, beside=7)
    assert "0.0 GB are free on cpu:0, 0.0 GB are free on cpu:1" in str(refused.value)
    assert "dtype bfloat16 takes half as much" in str(refused.value)
    free |= dict.fromkeys(free, 10**9)
    assert placing.place(architecture, "cpu:0,cpu:1", torch.float32).devices == CPUS[:2]


def test_keys_and_values_are_bounded_by_the_fullest_device(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {GPUS[0]: 900, GPUS[1]: 100}
    monkeypatch.setattr("unimodal.memory.free_bytes", lambda device: free[device])
    assert free_for_layers([GPUS[0]] * 5) == 900
    assert free_for_layers([*[GPUS[0]] * 9, GPUS[1]]) == 1000
    assert free_for_layers([GPUS[0], *[GPUS[1]] * 3]) == 133


# --- nothing else changes -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> Model:
    """Untied, with mixes of the residual stream and addresses."""
    return head_models.next_code_model(
        64, Grid(3, 2), addresses=True, residual_lambdas=True, value_embeddings=True
    )


@pytest.fixture(scope="module")
def apart(whole: Model) -> Model:
    """The same, its layers on two CPUs and its ends on a third."""
    transformer = copy.deepcopy(whole.transformer)
    transformer.placement = Placement(CPUS[2], (CPUS[0], CPUS[1]), CPUS[2])
    assert list(transformer.placement.borders) == [0, 1, 2]
    return replace(whole, transformer=transformer)


def test_hidden_vectors_and_codes_are_those_of_one_device(whole: Model, apart: Model) -> None:
    assert len(Branches(apart)._cache._memory) == 4, "keys and values lie with their layers"
    sequence = whole.sequencer.sequence(head_models.talk(whole))
    with torch.inference_mode():
        assert torch.equal(
            head_models.hidden_of(apart, sequence), head_models.hidden_of(whole, sequence)
        )
    documents = [head_models.request(words) for words in ("draw two red circles", "draw", "draw")]
    samplings = [Sampling(guidance=2.0, seed=3), Sampling(seed=4), Sampling(seed=5, image_drafts=3)]
    expected = head_models.drawn(whole, documents, samplings)
    assert head_models.drawn(apart, documents, samplings) == expected
    assert len({*expected[0]}) > 3 and expected[1] != expected[2]


def test_a_conversation_and_its_prefixes_are_those_of_one_device(
    whole: Model, apart: Model
) -> None:
    said = []
    for model in (whole, apart):
        chat = unimodal.Chat(model, seed=1, guidance=2.0)
        images = [chat(words, modality="image").images[0] for words in ("draw", "make it blue")]
        said.append([np.asarray(image) for image in images])
    for one, other in zip(*said, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_server_draws_what_one_device_does(whole: Model, apart: Model) -> None:
    drawn = []
    for model in (whole, apart):
        with serving(model, memory_bytes=2**26) as served:
            status, answer = served.ask(IMAGES, {"prompt": "draw a star", "seed": 5})
        assert status == 200
        content = base64.b64decode(answer["data"][0]["b64_json"])
        drawn.append(np.asarray(PILImage.open(io.BytesIO(content))))
    np.testing.assert_array_equal(*drawn)


def test_a_bundle_is_read_to_its_devices(whole: Model, tmp_path: Path) -> None:
    directory = save_bundle(tmp_path / "bundle", whole)
    found = load(directory, "cpu:0,cpu:1")
    placement = found.transformer.placement
    assert placement is not None and placement.layers == tuple(CPUS[:2])
    assert (placement.start, placement.end) == (CPUS[0], CPUS[1])
    one = load(directory)
    assert one.transformer.placement is None and found.hash == one.hash
    for name, weight in one.transformer.state_dict().items():
        assert torch.equal(found.transformer.state_dict()[name], weight)
    documents, sampling = [head_models.request("draw")], Sampling(image_temperature=0.0)
    assert head_models.drawn(found, documents, [sampling]) == head_models.drawn(
        one, documents, [sampling]
    )


# --- what moves ---------------------------------------------------------------------------------


KINDS = {
    "tied": ({}, ImageConfig()),
    "own table": ({"tied_head": False, "residual_lambdas": True}, ImageConfig(addresses=True)),
    "factorised": ({}, ImageConfig(levels=(4, 4, 4))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_meets_is_on_one_device(tiny_model: Model, kind: str) -> None:
    """Over three reads of a cache: causal, with a block that is kept, and after it grew."""
    changed, image = KINDS[kind]
    old = tiny_model.transformer
    config = replace(old.config, num_layers=4, **changed)
    architecture = Architecture(config, old.architecture.vocabulary, image)
    free = dict.fromkeys(FAKE, 10**9)
    shapes = parameter_shapes(architecture)
    placement = placed(dict.fromkeys(shapes, 4), config.tied_head, free, fewest=False)
    assert placement is not None
    with torch.device("meta"):
        transformer = UnifiedModel(architecture).eval()
    with FakeTensorMode(), torch.no_grad():
        weights = {
            name: torch.empty(shape, device=placement.of(name)) for name, shape in shapes.items()
        }
        transformer.load_state_dict(weights, assign=True)
        transformer.placement = placement
        cache = KVCache(config, 2, 8, device=transformer.layer_devices)
        cache.add(2)
        ones = torch.ones(2, 3, dtype=torch.int64, device=FAKE[0])
        for masks in (None, (ones, ones)):
            positions = cache.append(3, masks=masks)
            tokens = BranchInput(positions, positions[..., None].expand(2, 3, 2), [(), ()])
            hidden = transformer.hidden_states(tokens, positions, cache)
            logits = transformer.head.products(hidden[:, -1], transformer.output_table())
            assert hidden.device == logits.device == (FAKE[0] if config.tied_head else FAKE[1])
            cache.commit(np.array([3, 2]))
            cache.rollback()
            cache.grow(3, 20)
        cache.copy(0, 1)
        stored = cache.stored(0)
        assert {one.device for one in stored} == set(FAKE)
        cache.drop(1)
        cache.restore(cache.add().start, stored, [1] * 6, [0] * 6)

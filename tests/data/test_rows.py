"""Planned rows made real: documents side by side, images encoded together, sized and weighed."""

import io
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.faults import Means
from loader_cases import CONFIG, batches, documents, equal, made, write
from loader_cases import sequencer as sequencer
from loader_cases import sources as sources
from PIL import Image as PILImage

from unimodal.codec import ImageCodec
from unimodal.data import codes_member as codes
from unimodal.data.loader import Loader
from unimodal.data.shards import Shard, ShardWriter, find_shards
from unimodal.data.sizes import ImageRule
from unimodal.data.sources import SourceConfig
from unimodal.document import Document, Image, Text
from unimodal.sequence import IMAGE, PADDING, TEXT, Batch
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.grid import Grid


class Counted(Means):
    """Notes the red of the images of each call."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def encode(self, images):
        self.calls.append([int(image.pixels[0, 0, 0]) for image in images])
        return super().encode(images)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Three sources of the same samples: of pixels, of stored codes, and of one image each."""
    kept = {"pixels": (), "codes": (0, 1), "both": (1,)}
    for name, stored in kept.items():
        with ShardWriter(tmp_path_factory.mktemp("mixed") / name, max_samples=17) as writer:
            for index in range(30):
                writer.write_files(f"{index}", two_images(index, stored))
            kept[name] = SourceConfig(str(writer.path.parent))
    return kept


def two_images(index, stored):
    """An image, words, and an image, of which those numbered so are stored as codes."""
    parts = [{"image": 0}, {"text": f"#{index};"}, {"image": 1}]
    files = {"json": json.dumps({"parts": parts}).encode()}
    for number in range(2):
        pixels = np.full((8, 8 + 8 * number, 3), 2 * index + number, np.uint8)
        (encoded,) = Means().encode([Image(pixels)])
        stream = io.BytesIO()
        PILImage.fromarray(pixels).save(stream, "PNG")
        if number in stored:
            files[f"{number}.codes"] = codes.to_bytes(encoded, 256)
        else:
            files[f"{number}.png"] = stream.getvalue()
    return files


def test_images_of_a_row_share_one_call_of_the_codec(mixed, sequencer):
    codec = Counted()
    loader = Loader(mixed, sequencer, codec, CONFIG)
    window = loader.planner.window(loader.state)
    assert not codec.calls, "lengths are measured without it"
    met = Counter()
    for number in range(CONFIG.window_rows):
        places = window.row(number)
        built = loader.row_builder.build(places)
        (call,) = codec.calls
        codec.calls.clear()
        names = Counter(loader.row_builder.streams[place.stream].name for place in places)
        assert len(call) == 2 * names["pixels"] + names["both"] and not built.bad
        ids = built.row.ids
        found = sequencer.vocabulary.id_to_code(ids[sequencer.vocabulary.is_code(ids)])
        assert set(call) <= set(found.tolist())
        assert len(built.row.spans) == 2 * len(places)
        met += names
    assert min(met[name] for name in mixed) > 5


def test_pixels_and_stored_codes_give_the_same_rows(mixed, sequencer):
    whole = [batches(made({"one": source}, sequencer), 6) for source in mixed.values()]
    for first, *others in zip(*whole, strict=True):
        assert all(equal(first[0], batch) and first[1] == state for batch, state in others)


@pytest.mark.parametrize("world", [2, 4])
def test_rows_of_several_contents_are_the_same_on_any_ranks(mixed, sequencer, world):
    whole = batches(made(mixed, sequencer), 6)
    assert {number for batch, _ in whole for number in batch.source.unique().tolist()} >= {0, 1, 2}
    ranks = [
        batches(made(mixed, sequencer, rank=rank, world_size=world), 6) for rank in range(world)
    ]
    for (batch, _), *parts in zip(whole, *ranks, strict=True):
        for name in Batch.tensors():
            joined = torch.stack([getattr(part, name) for part, _ in parts], dim=1).flatten(0, 1)
            assert torch.equal(joined, getattr(batch, name))
        spans = [part.spans[at] for at in range(4 // world) for part, _ in parts]
        assert repr(spans) == repr(list(batch.spans))


def test_shards_written_before_give_the_same_rows(sources, sequencer, tmp_path):
    """Their parts say "picture" where today's say "image"."""
    with ShardWriter(tmp_path, max_samples=17) as writer:
        for shard in map(Shard, find_shards(sources["all"].shards)):
            for stored in map(shard.sample, range(len(shard))):
                renamed = stored.files["json"].replace(b'"image":', b'"picture":')
                assert renamed != stored.files["json"]
                writer.write_files(stored.key, {**stored.files, "json": renamed})
    before = {"all": SourceConfig(str(tmp_path))}
    both = batches(made(sources, sequencer), 8), batches(made(before, sequencer), 8)
    for (batch, state), (other, same) in zip(*both, strict=True):
        assert equal(batch, other) and state == same


def test_rows_are_documents_side_by_side(sources, sequencer):
    batch, _ = next(iter(made(sources, sequencer)))
    assert batch.ids.shape == (4, 128) and batch.positions.dtype == torch.int64
    begin = sequencer.vocabulary.special("begin")
    starts = batch.positions == 0
    assert (batch.ids[starts & (batch.doc != PADDING)] == begin).all()
    assert (batch.weights[batch.doc == PADDING] == 0).all()


def test_the_real_tokenizer_encodes_mixed_sizes_in_order():
    tokenizer = ImageTokenizer(TokenizerConfig())
    rng = np.random.default_rng(0)
    sizes = [(64, 64), (64, 128), (64, 64)]
    pixels = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    codec = ImageCodec(tokenizer)
    images = codec.encode([Image(array) for array in pixels])
    for array, image in zip(pixels, images, strict=True):
        (alone,) = codec.encode([Image(array)])
        assert image.grid == Grid(array.shape[0] // 8, array.shape[1] // 8)
        assert image.codec_hash == tokenizer.hash
        assert np.array_equal(image.codes, alone.codes)
    assert codec.encode([]) == []


def test_images_are_brought_to_size_and_varied(tmp_path, sequencer):
    """An image that grows to the right: its codes tell where it was cropped, and mirrors."""
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 4, 16, axis=0)
    page = Document((Image(np.repeat(ramp, 3, axis=2)), Text("a ramp")))
    sides = Document((Image(np.repeat(ramp, 3, axis=2)), Text("dark on the left")))
    rule = ImageRule(target_pixels=16 * 16, multiple=8, random_crop=True, flip=0.5)
    config = replace(CONFIG, images=rule)
    loader = made(write(tmp_path, [page, sides]), sequencer, config)
    rows = {True: set(), False: set()}
    for batch, _ in batches(loader, 8):
        for ids in documents(batch):
            ids = np.array(ids)
            codes = sequencer.vocabulary.id_to_code(ids[sequencer.vocabulary.is_code(ids)])
            assert len(codes) == 4
            says = "left" in sequencer.text_tokenizer.decode(
                ids[sequencer.vocabulary.is_text(ids)].tolist()
            )
            rows[says].add((codes[0], codes[1]))
    assert all(left < right for left, right in rows[True])
    assert any(left > right for left, right in rows[False])
    assert any(left < right for left, right in rows[False])
    assert len(rows[True]) > 10, "crops lie anywhere"


def test_weights_of_a_source_weigh_its_parts(sources, sequencer):
    config = replace(CONFIG, caption_dropout=0.0)
    plain, _ = next(iter(made(sources, sequencer, config)))
    heavy = {"all": replace(sources["all"], text_weight=2.0, image_weight=0.5)}
    weighed, _ = next(iter(made(heavy, sequencer, config)))
    text = torch.from_numpy(sequencer.vocabulary.is_text(plain.labels.numpy()))
    code = torch.from_numpy(sequencer.vocabulary.is_code(plain.labels.numpy()))
    assert (plain.modality[code] == IMAGE).all() and (plain.modality[text] == TEXT).all()
    learned = plain.weights > 0
    assert torch.equal(plain.ids, weighed.ids)
    assert torch.equal(weighed.weights[learned & text], 2 * plain.weights[learned & text])
    assert torch.equal(weighed.weights[learned & code], plain.weights[learned & code] / 2)

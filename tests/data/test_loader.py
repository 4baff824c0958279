"""The loader: the same rows however it is stopped or shared out, every document once a pass."""

import io
import json
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from benchmarks.faults import HASH, Means
from PIL import Image as PILImage

from unimodal.codec import ImageCodec
from unimodal.data import codes_member as codes
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.shards import Shard, ShardError, ShardWriter, find_shards
from unimodal.data.sizes import ImageRule
from unimodal.data.sources import SourceConfig, Stage
from unimodal.data.stateful import StatefulBatches
from unimodal.data.windows import LoaderState
from unimodal.document import Document, Image, Text
from unimodal.heads.next_code import NextCodeInputs
from unimodal.sequence import IMAGE, PADDING, TEXT, Batch
from unimodal.sequencer import Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.grid import Grid
from unimodal.vocabulary import Vocabulary

NUM_SAMPLES = 60
CONFIG = LoaderConfig(sequence_length=128, batch_rows=4, window_rows=8, seed=3, caption_dropout=0.5)


def sample(index):
    """A drawing or a question, whose text spells the index."""
    pixels = np.full((16, 16, 3), index, dtype=np.uint8)
    if index % 2:
        return Document((Text(f"draw #{index};", "user", 0), Image(pixels, role="assistant")))
    words = "word " * (index % 13)
    asked = (Image(pixels, role="user", weight=0), Text("which?", "user", 0))
    return Document((*asked, Text(f"#{index};{words}", "assistant")))


def write(directory, documents, **settings):
    with ShardWriter(directory, **settings) as writer:
        for index, document in enumerate(documents):
            writer.write(str(index), document)
    return {"all": SourceConfig(str(directory))}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    documents = [sample(index) for index in range(NUM_SAMPLES)]
    return write(tmp_path_factory.mktemp("shards"), documents, max_samples=17)


@pytest.fixture(scope="module")
def sequencer():
    text = TextTokenizer.train(["draw which"], 256)
    return Sequencer(Vocabulary.new(text.num_ids, 256), text, HASH, NextCodeInputs())


def made(sources, sequencer, config=CONFIG, **more):
    return Loader(sources, sequencer, Means(), config, **more)


def equal(first, second):
    same = (torch.equal(getattr(first, name), getattr(second, name)) for name in Batch.tensors())
    return all(same) and repr(first.spans) == repr(second.spans)


def batches(loader, count):
    return list(islice(loader, count))


def documents(batch):
    """The ids of each document in a batch."""
    for ids_T, doc_T in zip(batch.ids, batch.doc, strict=True):
        for doc in doc_T.unique():
            if doc != PADDING:
                yield tuple(ids_T[doc_T == doc].tolist())


def spelt(sequencer, ids):
    """The index that a document's text spells."""
    text = [i for i in ids if sequencer.vocabulary.is_text(i)]
    return int(sequencer.text_tokenizer.decode(text).partition("#")[2].partition(";")[0])


def test_a_loader_taken_up_anywhere_gives_the_same_batches(sources, sequencer):
    whole = batches(made(sources, sequencer), 45)
    rng = np.random.default_rng(0)
    at, state, loader = 0, None, None
    for _stop in range(20):  # stops at random, each one after the last
        more = int(rng.integers(0, 3))
        loader = made(sources, sequencer, state=state)
        for (batch, after), (other, other_after) in zip(
            whole[at : at + more], batches(loader, more), strict=False
        ):
            assert equal(batch, other) and after == other_after
            at, state = at + 1, after
    assert at > 10
    state = LoaderState(**json.loads(json.dumps(vars(state))))  # as a checkpoint keeps it
    assert equal(batches(made(sources, sequencer, state=state), 1)[0][0], whole[at][0])


def test_a_state_of_another_version_or_of_other_windows_is_an_error(sources, sequencer):
    loader = made(sources, sequencer)
    dataset, whole = StatefulBatches(loader), vars(LoaderState(3, taken=((0, 5),), owed=(0.0,)))
    older = {"seed": 3, "window": 1, "row": 0, "units": [5]}
    for wrong, words in (
        (older, "another version of the loader"),
        (whole | {"row": CONFIG.window_rows}, "windows have 8 rows"),
        (whole | {"row": -1}, "windows have 8 rows"),
        (whole | {"owed": []}, "streams"),
        (whole | {"group_rows": 8}, "of groups of 8 rows, the settings of 1: group_rows decides"),
    ):
        with pytest.raises(ValueError, match=words):
            dataset.load_state_dict(wrong)


@pytest.mark.parametrize(("world", "batch_rows"), [(1, 1), (2, 8), (4, 4)])
def test_every_document_once_a_pass_whole(sources, sequencer, world, batch_rows):
    """Whatever the ranks: between the states at which passes are complete, each comes once."""
    config = replace(CONFIG, caption_dropout=0.0, batch_rows=batch_rows)
    ranks = [
        iter(made(sources, sequencer, config, rank=rank, world_size=world)) for rank in range(world)
    ]
    seen, windows = [], []
    while not windows or sum(windows[-1][1]) < 4 * NUM_SAMPLES:
        parts = [next(rank) for rank in ranks]
        assert len({state for _, state in parts}) == 1
        seen += [ids for batch, _ in parts for ids in documents(batch)]
        state = parts[0][1]
        if state.row == 0:
            windows.append((len(seen), state.taken[0]))
    for count, (length_groups, alone) in windows:
        assert (count, length_groups) == (alone, 0), "a unit is neither lost nor doubled"
    coded = [
        tuple(sequencer.sequence(_encoded(sample(i))).ids.tolist()) for i in range(NUM_SAMPLES)
    ]
    counts = Counter(seen)
    assert set(counts) == set(coded)
    assert max(counts.values()) - min(counts.values()) <= 1, "passes follow each other"


def _encoded(document):
    parts = []
    for part in document.parts:
        if isinstance(part, Image):
            (part,) = Means().encode([part])
        parts.append(part)
    return Document(tuple(parts))


def test_passes_and_seeds_differ(sources, sequencer):
    def order(seed):
        loader = made(sources, sequencer, replace(CONFIG, seed=seed, caption_dropout=0.0))
        stream = loader.planner.streams[0]
        return stream.units((0, 0), 2 * NUM_SAMPLES, seed, 0.0).numbers.tolist()

    first = order(3)
    assert sorted(first[:NUM_SAMPLES]) == sorted(first[NUM_SAMPLES:]) == list(range(NUM_SAMPLES))
    assert first[:NUM_SAMPLES] != first[NUM_SAMPLES:] and first != order(4)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_rows_of_the_same_batches(sources, sequencer, world):
    whole = batches(made(sources, sequencer), 6)
    ranks = [
        batches(made(sources, sequencer, rank=rank, world_size=world), 6) for rank in range(world)
    ]
    for (batch, state), *parts in zip(whole, *ranks, strict=True):
        assert all(after == state for _, after in parts)
        for name in Batch.tensors():
            joined = torch.stack([getattr(part, name) for part, _ in parts], dim=1).flatten(0, 1)
            assert torch.equal(joined, getattr(batch, name))


def test_the_rows_do_not_depend_on_the_batch(sources, sequencer):
    small = batches(made(sources, sequencer, replace(CONFIG, batch_rows=1)), 16)
    large = batches(made(sources, sequencer, replace(CONFIG, batch_rows=8)), 2)
    for name in Batch.tensors():
        joined = torch.cat([getattr(batch, name) for batch, _ in small])
        assert torch.equal(joined, torch.cat([getattr(batch, name) for batch, _ in large]))


@pytest.mark.slow
def test_worker_processes_change_nothing(sources, sequencer):
    whole = batches(made(sources, sequencer), 10)
    for workers in (1, 3):
        loader = made(sources, sequencer, state=whole[2][1], workers=workers)
        for (batch, state), (other, after) in zip(whole[3:], batches(loader, 7), strict=True):
            assert equal(batch, other) and state == after


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


def test_dropout_is_decided_by_seed_pass_and_sample(sources, sequencer):
    stream = made(sources, sequencer).planner.streams[0]
    units = stream.units((0, 0), 100 * NUM_SAMPLES, 3, 0.5)
    again = stream.units(stream.sizes, NUM_SAMPLES, 3, 0.5)
    assert again.drops.tolist() == units.drops[NUM_SAMPLES : 2 * NUM_SAMPLES].tolist()
    drawn = units.numbers % 2 == 1
    assert set(units.drops[drawn].tolist()) == {0, 1}  # None, "text"
    assert 0.47 < (units.drops[drawn] == 1).mean() < 0.53  # 3.3 standard deviations of 0.5
    assert set(units.drops[~drawn].tolist()) == {0}
    assert not stream.units((0, 0), 500, 3, 0.0).drops.any()
    always = stream.units((0, 0), 500, 3, 1.0)
    assert (always.drops == always.numbers % 2).all()


def test_each_drop_of_an_edit_is_as_likely(tmp_path, sequencer):
    pixels = np.zeros((16, 16, 3), np.uint8)
    shown, drawn = Image(pixels, role="user"), Image(pixels, role="assistant")
    edit = Document((shown, Text("edit", "user", 0), drawn))
    loader = made(write(tmp_path, [edit]), sequencer)
    drops = loader.planner.streams[0].units((0, 0), 6000, 0, 0.75).drops
    assert np.abs(np.bincount(drops, minlength=4) / 6000 - 0.25).max() < 0.025


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


def test_stages_change_mixture_and_images_at_their_step(tmp_path, sequencer):
    pixels = np.zeros((32, 32, 3), np.uint8)
    first = write(tmp_path / "a", [Document((Image(pixels), Text(f"a{k}"))) for k in range(9)])
    second = write(tmp_path / "b", [Document((Text(f"b{k}"),)) for k in range(9)])
    sources = {"a": first["all"], "b": replace(second["all"], weight=0)}
    stages = (Stage(4, {"a": 1, "b": 1}), Stage(8, target_pixels=32 * 32))
    rule = ImageRule(target_pixels=16 * 16)
    config = replace(CONFIG, images=rule, stages=stages, batch_rows=4)
    found = []
    for batch, _ in batches(made(sources, sequencer, config), 12):
        ids = batch.ids[batch.doc != PADDING]
        image = sequencer.vocabulary.is_code(ids.numpy()).sum().item()
        places = (ids == sequencer.vocabulary.special("image")).sum().item()
        texts = int((batch.ids == sequencer.text_tokenizer.encode("b")[0]).sum())
        found.append((image // places, texts > 0))
    assert found == [(4, False)] * 4 + [(4, True)] * 4 + [(16, True)] * 4
    loader = made(sources, sequencer, config)
    assert loader.row_builder.sources == ("a", "b") and len(loader.row_builder.streams) == 4
    whole = batches(loader, 12)
    for batch, _ in whole:
        assert torch.equal(batch.source == PADDING, batch.doc == PADDING)
        for letter, number in (("a", 0), ("b", 1)):
            spells = batch.ids == sequencer.text_tokenizer.encode(letter)[0]
            assert (batch.source[spells] == number).all()
    (batch, _), *_ = batches(made(sources, sequencer, config, state=whole[8][1]), 1)
    assert equal(batch, whole[9][0])


def test_a_stateful_dataset_goes_on_from_its_state(sources, sequencer):
    whole = [batch for batch, _ in batches(made(sources, sequencer), 9)]
    first = StatefulBatches(made(sources, sequencer))
    for batch, other in zip(batches(first, 4), whole, strict=False):
        assert equal(batch, other)
    state = json.loads(json.dumps(first.state_dict()))
    again = StatefulBatches(made(sources, sequencer))
    again.load_state_dict(state)
    for batch, other in zip(batches(again, 5), whole[4:], strict=True):
        assert equal(batch, other)
    with pytest.raises(ValueError, match="state is of seed 9"):
        again.load_state_dict({**state, "seed": 9})
    workers = torch.utils.data.DataLoader(again, batch_size=None, num_workers=1)
    with pytest.raises(ValueError, match="num_workers must be 0"):
        next(iter(workers))


def test_torchdata_takes_it(sources, sequencer):
    stateful_dataloader = pytest.importorskip("torchdata.stateful_dataloader")

    def loaded():
        dataset = StatefulBatches(made(sources, sequencer))
        return stateful_dataloader.StatefulDataLoader(dataset, batch_size=None, num_workers=0)

    whole = batches(loaded(), 8)
    first = loaded()
    iterator = iter(first)
    for _ in range(3):
        next(iterator)
    again = loaded()
    again.load_state_dict(first.state_dict())
    for batch, other in zip(batches(again, 5), whole[3:], strict=True):
        assert equal(batch, other)


def test_parts_of_a_source_are_apart_and_whole(sources, sequencer):
    def keys(split):
        source = {"all": replace(sources["all"], split=split)}
        loader = made(source, sequencer, replace(CONFIG, caption_dropout=0.0))
        units = loader.planner.streams[0].lengths.units[:-1]
        return {(int(unit["shard"]), int(unit["sample"])) for unit in units}

    first, second, whole = keys((0.0, 0.7)), keys((0.7, 1.0)), keys((0.0, 1.0))
    assert not first & second and first | second == whole and len(whole) == NUM_SAMPLES
    assert 30 < len(first) < 52


def test_bad_settings_are_reported_together(sources, sequencer):
    bad = LoaderConfig(
        sequence_length=1, batch_rows=3, group_rows=4, window_rows=9, seed=-1, caption_dropout=2
    )
    with pytest.raises(ValueError) as error:
        made(sources, sequencer, bad, state=LoaderState(7), rank=3, world_size=4)
    for words in ("sequence_length 1", "seed -1", "caption_dropout 2", "3 rows on rank 3 of 4"):
        assert words in str(error.value)
    for words in ("batch_rows 3: a multiple of group_rows 4", "window_rows 9: a multiple of group"):
        assert words in str(error.value)
    assert LoaderConfig(group_rows=0).problems() == ["group_rows 0: at least 1"]
    with pytest.raises(ValueError, match="state is of seed 7"):
        made(sources, sequencer, state=LoaderState(7, taken=(0,)))
    with pytest.raises(ValueError, match="state is of 2 streams, the settings make 1"):
        made(sources, sequencer, state=LoaderState(3, taken=(0, 0)))
    with pytest.raises(ValueError, match="multiple 12: a multiple of the tokenizer's patch, 8"):
        made(sources, sequencer, replace(CONFIG, images=ImageRule(multiple=12)))
    with pytest.raises(ValueError, match="stages name more: sources are all"):
        made(sources, sequencer, replace(CONFIG, stages=(Stage(3, {"more": 1}),)))
    with pytest.raises(ShardError, match="holds no .tar shard"):
        made({"all": SourceConfig("/")}, sequencer)

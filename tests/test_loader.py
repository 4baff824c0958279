"""The loader: the same batches however it is stopped, every document once an epoch, nothing cut."""

from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from unimodal.data.loader import Loader, LoaderConfig, PictureEncoder, State, dropped
from unimodal.data.shards import Shard, ShardError, ShardWriter, find_shards
from unimodal.document import Document, Picture, Text
from unimodal.sequence import PADDING, Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.grid import Grid
from unimodal.vocabulary import Vocabulary

NUM_SAMPLES = 60
CONFIG = LoaderConfig(row_length=128, batch_rows=4, window_samples=23, seed=3, caption_dropout=0.5)


def encode(pixels):
    """A stand-in for an image tokenizer: a 2 x 2 grid of means of the quarters."""
    pictures = []
    for array in pixels:
        codes = array.reshape(2, 8, 2, 8, 3).mean(axis=(1, 3, 4)).astype(int).reshape(-1)
        pictures.append(Picture(codes=codes, grid=Grid(2, 2), tokenizer_hash="fake"))
    return pictures


def sample(index):
    """A drawing or a question, whose text spells the index."""
    pixels = np.full((16, 16, 3), index, dtype=np.uint8)
    if index % 2:
        return Document((Text(f"draw #{index};", "user", 0), Picture(pixels, role="assistant")))
    words = "word " * (index % 13)
    asked = (Picture(pixels, role="user", weight=0), Text("which?", "user", 0))
    return Document((*asked, Text(f"#{index};{words}", "assistant")))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shards")
    with ShardWriter(directory, max_samples=17) as writer:
        for index in range(NUM_SAMPLES):
            writer.write(str(index), sample(index))
    return find_shards(directory)


@pytest.fixture(scope="module")
def sequencer():
    text = TextTokenizer.train(["draw which"], 256)
    return Sequencer(Vocabulary(text.num_ids, 256), text, "fake")


def equal(first, second):
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in vars(first))


def batches(loader, count):
    return list(islice(loader, count))


def documents(batch):
    """The ids of each document in a batch, and whether a row was padded before its end."""
    for ids_T, doc_T in zip(batch.ids, batch.doc, strict=True):
        for doc in doc_T.unique():
            if doc != PADDING:
                yield tuple(ids_T[doc_T == doc].tolist())


def test_a_loader_taken_up_anywhere_gives_the_same_batches(shards, sequencer):
    whole = batches(Loader(shards, sequencer, encode, CONFIG), 20)
    assert whole[-1][1].epoch >= 2, "the test should pass an epoch's end"
    for stop in (0, 1, 4, 7, 13):
        state = whole[stop][1]
        again = batches(Loader(shards, sequencer, encode, CONFIG, state), 19 - stop)
        for (batch, after), (other, other_after) in zip(whole[stop + 1 :], again, strict=True):
            assert equal(batch, other) and after == other_after


def test_every_document_once_an_epoch_whole(shards, sequencer):
    """Without dropout, the sequences of an epoch's rows are those of the documents, uncut."""
    config = replace(CONFIG, caption_dropout=0.0, batch_rows=1)
    seen, loader = Counter(), Loader(shards, sequencer, encode, config)
    previous = loader.state
    for batch, state in loader:
        if previous.epoch == 1:
            seen.update(documents(batch))
        if state.epoch == 2:
            break
        previous = state
    coded = [sequencer.sequence(_encoded(sample(index))) for index in range(NUM_SAMPLES)]
    assert seen == Counter(tuple(sequence.ids.tolist()) for sequence in coded)


def _encoded(document):
    parts = []
    for part in document.parts:
        if isinstance(part, Picture):
            (picture,) = encode([part.pixels])
            part = replace(picture, role=part.role, weight=part.weight)
        parts.append(part)
    return Document(tuple(parts))


def test_epochs_and_seeds_differ(shards, sequencer):
    loader = Loader(shards, sequencer, encode, CONFIG)
    first, second = loader.windows.rows(0, 0), loader.windows.rows(1, 0)
    other = Loader(shards, sequencer, encode, replace(CONFIG, seed=4)).windows.rows(0, 0)
    texts = [str([row.ids.tolist() for row in rows]) for rows in (first, second, other)]
    assert len(set(texts)) == 3


def test_ranks_share_the_rows_of_the_same_batches(shards, sequencer):
    whole = batches(Loader(shards, sequencer, encode, CONFIG), 6)
    ranks = [
        batches(Loader(shards, sequencer, encode, CONFIG, None, rank, 2), 6) for rank in range(2)
    ]
    for (batch, state), *parts in zip(whole, *ranks, strict=True):
        assert all(after == state for _, after in parts)
        for name, tensor in vars(batch).items():
            joined = torch.stack([getattr(part, name) for part, _ in parts], dim=1).flatten(0, 1)
            assert torch.equal(joined, tensor)


@pytest.mark.slow
def test_worker_processes_change_nothing(shards, sequencer):
    whole = batches(Loader(shards, sequencer, encode, CONFIG), 10)
    loader = Loader(shards, sequencer, encode, CONFIG, whole[2][1], workers=2)
    for (batch, state), (other, after) in zip(whole[3:], batches(loader, 7), strict=True):
        assert equal(batch, other) and state == after


def test_rows_are_documents_side_by_side(shards, sequencer):
    batch, _ = next(iter(Loader(shards, sequencer, encode, CONFIG)))
    assert batch.ids.shape == (4, 128) and batch.positions.dtype == torch.int64
    begin = sequencer.vocabulary.control("begin")
    starts = batch.positions == 0
    assert (batch.ids[starts & (batch.doc != PADDING)] == begin).all()
    assert (batch.weights[batch.doc == PADDING] == 0).all()


def test_dropout_is_decided_by_seed_epoch_and_sample():
    drawing, question = sample(1), sample(2)
    pixels = np.zeros((16, 16, 3), np.uint8)
    edit = Document((Picture(pixels, role="user"), *drawing.parts))
    decide = [dropped(drawing, CONFIG, 0, number) for number in range(2000)]
    assert decide == [dropped(drawing, CONFIG, 0, number) for number in range(2000)]
    assert decide != [dropped(drawing, CONFIG, 1, number) for number in range(2000)]
    assert set(decide) == {None, "text"}
    assert 0.45 < decide.count("text") / 2000 < 0.55  # 4.5 standard deviations of 0.5
    assert {dropped(question, CONFIG, 0, number) for number in range(100)} == {None}
    kinds = {dropped(edit, CONFIG, 0, number) for number in range(100)}
    assert kinds == {None, "text", "pictures", "both"}
    always, never = replace(CONFIG, caption_dropout=1.0), replace(CONFIG, caption_dropout=0.0)
    assert dropped(drawing, always, 0, 0) == "text" and dropped(drawing, never, 0, 0) is None


def test_the_real_tokenizer_encodes_mixed_sizes_in_order():
    tokenizer = ImageTokenizer(TokenizerConfig())
    rng = np.random.default_rng(0)
    sizes = [(64, 64), (64, 128), (64, 64)]
    pixels = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    encode_real = PictureEncoder(tokenizer)
    pictures = encode_real(pixels)
    for array, picture in zip(pixels, pictures, strict=True):
        (alone,) = encode_real([array])
        assert picture.grid == Grid(array.shape[0] // 8, array.shape[1] // 8)
        assert picture.tokenizer_hash == tokenizer.hash
        assert np.array_equal(picture.codes, alone.codes)
    assert encode_real([]) == []


def test_errors_name_the_shard_and_key(shards, sequencer, tmp_path):
    short = replace(CONFIG, row_length=40)
    with pytest.raises(ShardError, match=r"shard-\d+.tar, key \d+: \d+ positions .* row of 40"):
        next(iter(Loader(shards, sequencer, encode, short)))
    with ShardWriter(tmp_path) as writer:
        writer.write("a", sample(1))
    (path,) = find_shards(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"parts"', b'"party"'))
    assert len(Shard(path)) == 1
    with pytest.raises(ShardError, match="shard-000000.tar, key a: .*files and fields of none"):
        next(iter(Loader([path], sequencer, encode, CONFIG)))


def test_bad_settings_are_reported_together(shards, sequencer):
    bad = LoaderConfig(row_length=1, batch_rows=3, window_samples=0, seed=-1, caption_dropout=2)
    with pytest.raises(ValueError) as error:
        Loader(shards, sequencer, encode, bad, State(7), rank=0, world_size=2)
    for words in ("row_length 1", "window_samples 0", "seed -1", "caption_dropout 2", "3 rows"):
        assert words in str(error.value)
    with pytest.raises(ValueError, match="state is of seed 7"):
        Loader(shards, sequencer, encode, CONFIG, State(7))
    with pytest.raises(ShardError, match="no samples"):
        Loader([], sequencer, encode, CONFIG)

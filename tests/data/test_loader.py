"""The loader: the same rows however it is stopped or shared out, every document once a pass."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.faults import Means
from loader_cases import CONFIG, NUM_SAMPLES, batches, documents, equal, made, sample, write
from loader_cases import sequencer as sequencer
from loader_cases import sources as sources

from unimodal.data.loader import LoaderConfig
from unimodal.data.shards import ShardError
from unimodal.data.sizes import ImageRule
from unimodal.data.sources import SourceConfig, Stage
from unimodal.data.windows import LoaderState
from unimodal.document import Document, Image, Text
from unimodal.sequence import PADDING, Batch


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

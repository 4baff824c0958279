"""A batch's mix of tasks is what chance gives, unless rows are grouped by what they cost."""

from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from benchmarks.faults import Means, sequencer

from unimodal.data.command import SceneShards
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.scenes.conversations import Mix
from unimodal.data.shards import Samples, ShardWriter, find_shards
from unimodal.data.sources import SourceConfig
from unimodal.data.windows import planned_rows
from unimodal.document import Image
from unimodal.sequence import IMAGE, TEXT

SAMPLES, BATCHES = 1500, 600
CONFIG = LoaderConfig(sequence_length=1024, batch_rows=4, window_rows=128, caption_dropout=0.0)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Requests to draw, which are short, and images that are asked about, which are longer."""
    mix = Mix(draw=0.5, ask=0.5, describe=0, edit=0, story=0, greet=0, follow=0,
              asked_weight=0, seen_weight=0)  # fmt: skip
    scenes = SceneShards("conversations", SAMPLES, 5, 64, 1000, asdict(mix))
    folder = tmp_path_factory.mktemp("mix")
    with ShardWriter(folder, max_samples=500) as writer:
        for index in range(SAMPLES):
            writer.write(f"{index:06d}", scenes.document(index))
    return folder


@pytest.fixture(scope="module")
def is_drawing(shards: Path) -> np.ndarray:
    """Whether each sample is a request to draw, bool (SAMPLES,)."""
    samples = Samples(find_shards(shards))
    documents = map(samples.document, range(len(samples)))
    return np.array(
        [any(isinstance(p, Image) and p.role == "assistant" for p in d.parts) for d in documents]
    )


def loader(shards: Path, **settings: int) -> Loader:
    source = {"all": SourceConfig(str(shards))}
    return Loader(source, sequencer(), Means(), replace(CONFIG, **settings))


def excess(shards: Path, is_drawing: np.ndarray, **settings: int) -> np.ndarray:
    """By how many standard deviations of a binomial draw the drawings of each batch are too many.

    A batch of n documents has n p drawings, give or take the root of n p (1 - p).
    """
    planner = loader(shards, **settings).planner
    rows = planned_rows(planner, planner.begin())
    found = []
    for _ in range(BATCHES):
        units = [place.unit for places, _ in islice(rows, CONFIG.batch_rows) for place in places]
        found.append((len(units), is_drawing[units].sum()))
    rows.close()
    sizes_n, drawings_n = np.array(found).T
    p = drawings_n.sum() / sizes_n.sum()
    assert p == pytest.approx(is_drawing.mean(), abs=0.02)
    return (drawings_n - sizes_n * p) / np.sqrt(sizes_n * p * (1 - p))


def test_each_batch_has_its_share_of_tasks(shards: Path, is_drawing: np.ndarray) -> None:
    """The mean of 600 squares of a standard normal is 1, give or take 0.06."""
    z_n = excess(shards, is_drawing)
    assert 0.5 < (z_n**2).mean() < 1.2
    assert (np.abs(z_n) > 3.29).sum() <= 4, "of 600, one in a thousand is that far off"
    assert abs(np.corrcoef(z_n[:-1], z_n[1:])[0, 1]) < 0.15, "nor do neighbours go together"


def test_groups_of_rows_have_one_length_and_so_one_task(
    shards: Path, is_drawing: np.ndarray
) -> None:
    """Which the test above would notice: so it was for every batch of up to eight rows."""
    z_n = excess(shards, is_drawing, group_rows=4)
    assert (z_n**2).mean() > 4


def test_no_batch_learns_images_alone_or_text_alone(shards: Path) -> None:
    """The batches themselves, of two rows, as they are trained on."""
    for batch, _ in islice(loader(shards, batch_rows=2), 50):
        targets = [int((batch.modality == kind).sum()) for kind in (TEXT, IMAGE)]
        assert min(targets) > 50

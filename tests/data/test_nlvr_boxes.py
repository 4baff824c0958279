"""NLVR's boxes: cut where they are, recoloured in pixels and words alike, sentences together."""

import io
import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from unimodal.data.nlvr_boxes import GROUND, INKS, NAMES, boxes, recoloured, renamed, write
from unimodal.data.shards import Shard, ShardWriter
from unimodal.eval.vqa.source import Source
from unimodal.eval.vqa.tasks import task_of

PUBLISHED = Path(__file__).resolve().parents[2] / "../shared/data/nlvr/nlvr-test.tar"


def scene(inks: dict[str, tuple[int, int, int]]) -> np.ndarray:
    """A box of each ink, its circle drawn large and made small, so that its edge is soft."""
    image = Image.new("RGB", (1600, 400), (128, 128, 128))
    pen = ImageDraw.Draw(image)
    for at, name in enumerate(NAMES):
        pen.rectangle((600 * at, 0, 600 * at + 399, 399), tuple(map(int, GROUND)))
        pen.ellipse((600 * at + 100, 60, 600 * at + 260, 220), inks[name])
    return np.asarray(image.resize((400, 100), Image.Resampling.BOX))


def shard(folder: Path, sentences: list[str]) -> Path:
    stream = io.BytesIO()
    Image.fromarray(scene(INKS)).save(stream, "PNG")
    with ShardWriter(folder) as writer:
        for number, sentence in enumerate(sentences):
            fields = {"sentence": sentence, "label": number % 2 == 0, "identifier": f"{number}-1",
                      "structured_rep": "never read"}  # fmt: skip
            files = {"png": stream.getvalue(), "json": json.dumps(fields).encode()}
            writer.write_files(f"s-{number}", files)
    return folder / "shard-000000.tar"


@pytest.mark.parametrize("order", [*permutations(NAMES)])
def test_recoloured_is_what_would_have_been_drawn(order: tuple[str, ...]) -> None:
    wanted = scene(dict(zip(NAMES, [INKS[name] for name in order], strict=True)))
    found = recoloured(scene(INKS), order)
    in_boxes = np.concatenate([np.arange(start, start + 100) for start in (0, 150, 300)])
    difference = found[:, in_boxes].astype(int) - wanted[:, in_boxes]
    assert np.abs(difference).max() <= 3  # of roundings
    said = "A Blue block, a black one, YELLOW"
    back = tuple(NAMES[order.index(name)] for name in NAMES)
    assert renamed(renamed(said, order), back) == said.lower().replace("a blue", "A blue", 1)


def test_boxes_are_cut_where_they_are() -> None:
    cut = boxes(scene(INKS), 100)
    for box, ink in zip(cut, INKS.values(), strict=True):
        assert box.shape == (100, 100, 3)
        assert tuple(box[35, 45]) == ink and tuple(box[5, 5]) == tuple(GROUND)
    with pytest.raises(ValueError, match="an image of 300 x 100 pixels: NLVR's are of 400 x 100"):
        boxes(scene(INKS)[:, :300], 64)


def test_shards_have_six_colours_and_hold_sentences_out(tmp_path: Path) -> None:
    sentences = [f"There are {n} black circles left of a blue one" for n in range(12)]
    write(shard(tmp_path / "in", sentences), tmp_path / "out", 64, colours=True, held_out=0.5)
    found = []
    for folder in ("out", "out_held_out"):
        whole = Shard(tmp_path / folder / "shard-000000.tar")
        found.append([whole.sample(number) for number in range(len(whole))])
    learned, apart = ({one.fields["identifier"] for one in some} for some in found)
    assert len(learned) + len(apart) == 12 and not learned & apart and learned and apart
    assert len(found[0]) == 6 * len(learned) and len(found[1]) == len(apart)
    first = found[0][0].fields
    assert "structured_rep" not in first and first["answer"] == "yes" and first["label"] is True
    assert first["question"] == f"{first['sentence']}. Is this true?"
    words = [one.fields["sentence"] for one in found[0][:6]]
    assert len(set(words)) == 6 and words[0] == sentences[int(first["identifier"].split("-")[0])]
    # The black circle's box stands first in all: its pixels have the colour of the new name.
    for one in found[0][:6]:
        box = np.asarray(Image.open(io.BytesIO(one.files["0.png"])).convert("RGB")).astype(int)
        ink = np.array(INKS[one.fields["sentence"].split()[3]])
        assert np.abs(box - ink).max(-1).min() <= 2, one.fields["sentence"]


@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs shared/data/nlvr beside the repository")
def test_the_evaluation_reads_boxes_as_it_reads_images(tmp_path: Path) -> None:
    whole = Shard(PUBLISHED)
    with ShardWriter(tmp_path / "some") as writer:
        for number in range(4):
            sample = whole.sample(number)
            writer.write_files(sample.key, sample.files)
    part = tmp_path / "some/shard-000000.tar"
    write(part, tmp_path / "boxes")
    before, after = (
        task_of("nlvr").items(Source(path, path)) for path in (part, tmp_path / "boxes")
    )
    assert [one.id for one in before] == [one.id for one in after] and len(after) == 4
    for one, other in zip(before, after, strict=True):
        assert (one.question, one.expected, one.group) == (
            other.question, other.expected, other.group,
        )  # fmt: skip
        assert len(one.images) == 1 and len(other.images) == 3

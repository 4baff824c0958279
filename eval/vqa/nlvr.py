"""NLVR: whether a sentence about three boxes of blocks is true (Suhr et al. 2017).

Files: webdataset shards (.tar) with a PNG, or one for each of the three boxes
(data/nlvr_boxes.py), and a .json of sentence, label and identifier; or the official `dev.json`, an
object a line, with images in `images/DIRECTORY/dev-IDENTIFIER-0.png` (memory: the official layout).
`structured_rep`, which describes the image, is never read.

Rules: accuracy (published models of images reach 57 to 66 % on test, the majority 56.2 %); six
images share a sentence, so intervals are clustered by `identifier`.
"""

from pathlib import Path
from typing import Any

from unimodal.data.remote import local_shards
from unimodal.data.shards import Shard

from .item import Item
from .source import Row, Source, read_lines
from .task import AnswerTask, Chance, Verdict
from .yes_no import true_or_false

TRUE, FALSE = "true", "false"
PERMUTATIONS, BOXES = 6, 3


class Nlvr(AnswerTask):
    """Scores true and false."""

    name = "nlvr"
    rules = "accuracy"
    template = "{question} Is this true or false?"  # as data/formats.py trains it
    max_tokens = 8

    def items(self, source: Source) -> list[Item]:
        """Return each sentence beside each of its images."""
        if source.path.suffix == ".tar" or any(source.path.glob("*.tar")):
            shards = local_shards(str(source.path))
            return [item for path in shards for item in _of_shard(path)]
        file = source.find("dev.json", "test.json", "train.json")
        rows = read_lines(file)
        return [item for row in rows for item in _of_row(row, file, source)]

    def judge(self, expected: dict[str, Any], answer: str, chance: Chance) -> Verdict:
        """Return whether true (or yes) or false (or no) was said as it should be."""
        found = true_or_false(answer)
        parsed = None if found is None else (TRUE if found else FALSE)
        return Verdict(float(parsed == expected["answer"]), parsed)

    def constant(self, expected: dict[str, Any]) -> str:
        """Return true or false."""
        return expected["answer"]


def _item(row: Row, id: str, *images: Any) -> Item:
    label = row.get("label")
    answer = str(label).lower()
    if answer not in (TRUE, FALSE):
        raise ValueError(f"{row.place}: label is true or false, not {label!r:.80}")
    sentence = row.text("sentence").rstrip(".") + "."
    return Item(id, sentence, images, {"answer": answer}, "all", row.text("identifier"))


def _of_shard(path: Path) -> list[Item]:
    shard = Shard(path)
    found = []
    for number in range(len(shard)):
        sample = shard.sample(number)
        place = f"{path}, key {sample.key}"
        images = [bytes(sample.files[name]) for name in sample.image_files]
        if len(images) not in (1, BOXES):
            raise ValueError(f"{place}: {len(images)} images, and one, or {BOXES}, are wanted")
        found.append(_item(Row(sample.fields, place), sample.key, *images))
    return found


def _of_row(row: Row, file: Path, source: Source) -> list[Item]:
    """Return a sentence beside all its images that are there, at least one."""
    identifier, home = row.text("identifier"), row.fields.get("directory")
    folder = "images" if home is None else f"images/{home}"
    names = [f"{file.stem}-{identifier}-{at}.png" for at in range(PERMUTATIONS)]
    there = [name for name in names if (source.images / folder / name).is_file()] or names[:1]
    return [_item(row, name.removesuffix(".png"), f"{folder}/{name}") for name in there]

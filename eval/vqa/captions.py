"""Captions: a sentence about a photograph, compared with those of several people.

Files: COCO's `captions_val2014.json` (or another of that form) with images by their file_name; or a
table with image, captions (or answer, caption) and perhaps image_id.

Rules: CIDEr (Vedantam et al. 2015, arXiv 1411.5726) and BLEU-4 by pycocoevalcap, on the words of
its PTB tokenizer, which needs Java. The document frequencies of CIDEr are those of the captions
scored: a part of a set has another CIDEr than the whole, and one image alone has 0.
"""

import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..intervals import Estimate
from ..score import Prediction
from .clusters import mean_of_clusters, scaled, share_of_clusters
from .item import Item
from .source import Row, Source, objects, read_json
from .task import Task, most_common

NGRAMS = 4
MOST_CIDER = 10.0  # ten times a cosine
TINY, SMALL = 1e-15, 1e-9  # as in pycocoevalcap's bleu_scorer.py
Words = dict[str, list[str]]


class Captions(Task):
    """Scores captions by CIDEr and BLEU-4."""

    name = "captions"
    rules = "pycocoevalcap, PTB tokens"
    template = "{question}"
    max_tokens = 64
    most = MOST_CIDER
    package = "pycocoevalcap"

    def check(self) -> None:
        """Raise ValueError where pycocoevalcap or Java is missing."""
        try:
            import pycocoevalcap.cider.cider  # noqa: F401
        except ImportError as error:
            raise ValueError(
                f"captions are scored by pycocoevalcap: pip install 'unimodal[captions]' ({error})"
            ) from error
        if shutil.which("java") is None:
            raise ValueError(
                "captions are cut into words by Stanford's PTB tokenizer, which needs Java: "
                "install a Java runtime, so that `java` is found"
            )

    def items(self, source: Source) -> list[Item]:
        """Return each image with all its captions."""
        if source.is_table:
            rows = source.rows()
            return [self._of_row(row, number) for number, row in enumerate(rows)]
        file = source.find("captions_*.json")
        value = read_json(file)
        if not isinstance(value, dict) or not {"images", "annotations"} <= set(value):
            raise ValueError(f"{file} has no images and annotations: it is none of COCO's files")
        captions: dict[str, list[str]] = {}
        for row in objects(value["annotations"], f"{file}, annotations"):
            captions.setdefault(row.text("image_id"), []).append(row.text("caption"))
        images = {row.text("id"): row for row in objects(value["images"], f"{file}, images")}
        if images.keys() != captions.keys():
            alone = sorted(images.keys() ^ captions.keys())
            raise ValueError(f"{file}: image {alone[0]} has no caption, or a caption no image")
        return [_item(id, (row.text("file_name"),), captions[id]) for id, row in images.items()]

    def judged(self, predictions: Sequence[Prediction], seed: int) -> list[Prediction]:
        """Return predictions with each one's CIDEr and its counts for BLEU."""
        if not predictions:
            return []
        self.check()
        ids = [str(number) for number in range(len(predictions))]
        asked = {id: one["expected"]["captions"] for id, one in zip(ids, predictions, strict=True)}
        said = {id: [one["answer"]] for id, one in zip(ids, predictions, strict=True)}
        people, model = _words(asked), _words(said)
        return [
            {
                **one, "parsed": one["answer"].strip() or None,
                "unparsed": not one["answer"].strip(), "value": cider, "bleu_counts": counts,
            }
            for one, cider, counts in zip(
                predictions, _cider(people, model), _bleu_counts(people, model), strict=True
            )
        ]  # fmt: skip

    def constant(self, expected: dict[str, Any]) -> str:
        """Return the most common of the image's captions."""
        return most_common(expected["captions"])

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return CIDEr as `overall`, and BLEU-4."""
        return {
            "overall": scaled(
                mean_of_clusters((one["group"], one["value"] / MOST_CIDER) for one in predictions),
                MOST_CIDER,
            ),
            "bleu_4": _bleu_4(predictions),
        }

    def _of_row(self, row: Row, number: int) -> Item:
        captions = row.get("captions", "answer", "caption")
        listed = captions if isinstance(captions, list) else [captions]
        texts = Row({"captions": listed}, row.place).texts("captions")
        id = str(row.fields.get("image_id") or row.fields.get("id") or number)
        return _item(id, (row.get("image"),), texts)


def bleu_4(sums: np.ndarray) -> float:
    """Return BLEU-4 of summed counts: n-grams right and in all, for n = 1 to 4, then the lengths of
    answers and of their nearest references (Papineni et al. 2002, eq. 3, as pycocoevalcap has it).
    """
    right_4, all_4, (length, reference) = sums[:NGRAMS], sums[NGRAMS : 2 * NGRAMS], sums[-2:]
    precision = np.prod((right_4 + TINY) / (all_4 + SMALL)) ** (1 / NGRAMS)
    shortness = (length + TINY) / (reference + SMALL)
    return float(precision * (np.exp(1 - 1 / shortness) if shortness < 1 else 1.0))


def _item(id: str, images: tuple[Any, ...], captions: list[str]) -> Item:
    return Item(
        id, "Provide a one-sentence caption for the provided image.", images,
        {"captions": captions}, "all", id,
    )  # fmt: skip


def _words(captions: Words) -> Words:
    """Return captions as PTB tokens joined by spaces; ValueError where the tokenizer fails."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    # A break within a caption would shift all that follow: the tokenizer works line by line.
    lines = {
        id: [{"caption": " ".join(text.split())} for text in texts]
        for id, texts in captions.items()
    }
    found: Words = PTBTokenizer().tokenize(lines)
    if {id: len(texts) for id, texts in found.items()} != {
        id: len(texts) for id, texts in captions.items()
    }:
        raise ValueError("the PTB tokenizer returned another number of captions: see Java's errors")
    return found


def _cider(people: Words, model: Words) -> list[float]:
    from pycocoevalcap.cider.cider import Cider

    return [float(one) for one in Cider().compute_score(people, model)[1]]


def _bleu_counts(people: Words, model: Words) -> list[list[float]]:
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=NGRAMS)
    for id, answers in model.items():
        scorer += (answers[0], people[id])
    return [
        [*one["correct"], *one["guess"], one["testlen"], _nearest(one["reflen"], one["testlen"])]
        for one in scorer.ctest
    ]


def _nearest(lengths: Sequence[int], length: int) -> int:
    """Return the reference's length that is nearest, of two equally near ones the shorter."""
    return min((abs(one - length), one) for one in lengths)[1]


def _bleu_4(predictions: Sequence[Prediction]) -> Estimate:
    return share_of_clusters(((one["group"], one["bleu_counts"]) for one in predictions), bleu_4)

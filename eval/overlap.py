"""How much of what an evaluation asks was in the training data: prompts and images, by content.

In: `Probe`s, what the evaluation asks and shows, and training shards. Out: counts and examples,
which go into the result: a score on what was learned by heart is another score.

- A prompt is there *exactly* where a text of the training data, or a line of one, has the same
  words in the same order, whatever their case and punctuation; *nearly* where one text has at least
  NEAR_TEXT of its trigrams of words. Prompts of fewer than five words are compared exactly alone.
- An image is there exactly where its pixels are, nearly where the root mean square difference of
  both, reduced to THUMB x THUMB pixels, is at most NEAR_IMAGE of 255: another file format, another
  size and noise do not hide it; a crop, a mirrored image and other colours do.
- An item is there where one training sample holds its prompt and one of its images, or its prompt
  alone where it shows none.

Texts are all strings of a sample's .json and .txt. What cannot be compared is counted: samples that
cannot be read, and images that are there as codes.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from unimodal.data.codes_member import is_codes
from unimodal.data.formats import SampleError
from unimodal.data.image_members import holds_image
from unimodal.data.remote import local_shards
from unimodal.data.sample import Sample
from unimodal.data.shards import Shard
from unimodal.tokenizer.pixels import ImageError, open_image

from .report import progress

WORD = re.compile(r"\w+")
NEAR_TEXT = 0.8  # of a prompt's trigrams, in one text
LEAST_TRIGRAMS = 3
THUMB = 16  # pixels a side
NEAR_IMAGE = 8.0  # levels of 255
MOST_EXAMPLES = 10
EXACT, NEAR = "exact", "near"
NOT_CHECKED = "not checked"
WHATS = ("prompts", "images", "items")
Picture = bytes | np.ndarray
"""The contents of an image's file, or its pixels, uint8 (H, W, 3)."""


@dataclass(frozen=True)
class Probe:
    """An item of an evaluation: its words, and the names of its images."""

    id: str
    words: str
    images: tuple[str, ...] = ()


@dataclass
class Found:
    """Which of some things are in the training data, how, and where first."""

    of: int
    hits: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, name: str, how: str, place: str) -> None:
        """Note a thing that was found; exactly is more than nearly."""
        if name not in self.hits or (how == EXACT and self.hits[name]["how"] == NEAR):
            self.hits[name] = {"what": name, "how": how, "training": place}

    def json(self) -> dict[str, Any]:
        """Return counts and the first examples."""
        counts = Counter(hit["how"] for hit in self.hits.values())
        examples = [self.hits[name] for name in sorted(self.hits)][:MOST_EXAMPLES]
        return {"of": self.of, EXACT: counts[EXACT], NEAR: counts[NEAR], "examples": examples}


def overlap(
    probes: Sequence[Probe], images: Iterable[tuple[str, Picture]], training: Sequence[str]
) -> dict[str, Any]:
    """Return how much of the probes is in training shards: `prompts`, `images` and `items`, each
    with counts and examples.

    images: each under the name that probes use; one at a time is in memory. training: shards,
    folders of shards or addresses, as training takes them. ValueError (ShardError) where there are
    no shards.
    """
    texts, looks = _Texts(probes), _Looks(images)
    prompts = Found(len(texts))
    shown, items = Found(len(looks)), Found(len(probes))
    counts: Counter[str] = Counter(samples=0, unread=0, codes=0)
    for place, sample in _samples(training):
        counts["samples"] += 1
        try:
            said = dict(texts.found(_strings(sample)))
            seen = dict(looks.found(_images(sample, counts)))
        except (SampleError, ImageError):
            counts["unread"] += 1
            continue
        for name, how in said.items():
            prompts.add(name, how, place)
        for name, how in seen.items():
            shown.add(name, how, place)
        for probe, how in texts.items(said, seen):
            items.add(probe.id, how, place)
    if not counts["samples"]:
        raise ValueError(f"--training {' '.join(training)} holds no samples")
    return {
        "training": list(training), **counts,
        "prompts": prompts.json(), "images": shown.json(), "items": items.json(),
    }  # fmt: skip


def check_shards(training: Sequence[str]) -> None:
    """Raise ValueError (ShardError) where there are no shards, before anything else is done."""
    for location in training:
        local_shards(location)


def told(found: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the overlap as entries of a recipe, short enough to be printed whole."""
    if found is None:
        return {"training_overlap": NOT_CHECKED}
    counted = {what: found[what] for what in WHATS if found[what]["of"]}
    return {
        f"{what}_in_training": f"{one[EXACT]} exact, {one[NEAR]} near of {one['of']}"
        for what, one in counted.items()
    } | {"training_samples": str(found["samples"])}


def with_overlap(report: dict[str, Any], found: dict[str, Any] | None) -> dict[str, Any]:
    """Return a report that says what of it was in the training data, or that nobody looked."""
    told_too = {"recipe": report["recipe"] | told(found)}
    return report | told_too | ({} if found is None else {"overlap": found})


def _samples(training: Sequence[str]) -> Iterator[tuple[str, Sample]]:
    paths = [path for location in training for path in local_shards(location)]
    for path in progress(paths, "overlap"):
        shard = Shard(path)
        for number in range(len(shard)):
            sample = shard.sample(number)
            yield f"{path.name}, {sample.key}", sample


def _strings(sample: Sample) -> Iterator[str]:
    """Yield all texts of a sample."""
    if "txt" in sample.files:
        yield sample.text()
    yield from _leaves(sample.fields)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if not holds_image(value):
            yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one)


def _images(sample: Sample, counts: Counter[str]) -> Iterator[bytes]:
    for name in sample.image_files:
        if is_codes(name):
            counts["codes"] += 1
        else:
            yield sample.files[name]


def words_of(text: str) -> str:
    """Return the words of a text as they are compared, a space between them."""
    return " ".join(WORD.findall(text.casefold()))


def _trigrams(words: str) -> set[tuple[str, ...]]:
    one = words.split()
    return set(zip(one, one[1:], one[2:], strict=False))


class _Texts:
    """Prompts by their words, found in texts."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self._probes: dict[str, list[Probe]] = {}
        for probe in probes:
            if words := words_of(probe.words):
                self._probes.setdefault(words, []).append(probe)
        self._sizes: dict[str, int] = {}
        self._with: dict[tuple[str, ...], list[str]] = {}
        for words in self._probes:
            grams = _trigrams(words)
            if len(grams) >= LEAST_TRIGRAMS:
                self._sizes[words] = len(grams)
                for gram in grams:
                    self._with.setdefault(gram, []).append(words)

    def __len__(self) -> int:
        return len(self._probes)

    def found(self, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield prompts that stand in the texts, and how: near ones before exact ones."""
        exact = set()
        for text in texts:
            whole = words_of(text)
            exact |= {whole, *map(words_of, text.splitlines())} & self._probes.keys()
            hits = Counter(words for gram in _trigrams(whole) for words in self._with.get(gram, ()))
            for words, count in hits.items():
                if count >= NEAR_TEXT * self._sizes[words]:
                    yield words, NEAR
        yield from ((words, EXACT) for words in exact)

    def items(
        self, said: Mapping[str, str], seen: Mapping[str, str]
    ) -> Iterator[tuple[Probe, str]]:
        """Yield the items that one sample holds: prompt and an image; exact where both are."""
        for words, how in said.items():
            for probe in self._probes[words]:
                ways = {seen[image] for image in probe.images if image in seen}
                if not probe.images:
                    yield probe, how
                elif ways:
                    yield probe, EXACT if how == EXACT and EXACT in ways else NEAR


class _Looks:
    """Images, found among others by their thumbnails, and by their pixels."""

    def __init__(self, images: Iterable[tuple[str, Picture]]) -> None:
        looks = [(name, *_look(image)) for name, image in images]
        self._names = [name for name, _, _ in looks]
        self._pixels = [pixels for _, pixels, _ in looks]
        self._thumbs_ND = np.array([thumb for _, _, thumb in looks], np.float32).reshape(
            len(looks), THUMB * THUMB * 3
        )
        self._squares_N = (self._thumbs_ND**2).sum(1)

    def __len__(self) -> int:
        return len(self._names)

    def found(self, contents: Iterable[bytes]) -> Iterator[tuple[str, str]]:
        """Yield the names of images that are among the contents, and how."""
        exact = set()
        for content in contents:
            pixels, thumb_D = _look(content)
            # |a - b|^2 = |a|^2 + |b|^2 - 2 a b, so that one product compares with all.
            squares_N = self._squares_N + thumb_D @ thumb_D - 2 * (self._thumbs_ND @ thumb_D)
            for at in np.flatnonzero(squares_N <= NEAR_IMAGE**2 * thumb_D.size):
                yield self._names[at], NEAR
                if pixels == self._pixels[at]:
                    exact.add(self._names[at])
        yield from ((name, EXACT) for name in exact)


def _look(image: Picture) -> tuple[str, np.ndarray]:
    """Return the hash of an image's pixels, and its thumbnail as a float32 vector of 0 to 255."""
    whole = Image.fromarray(image) if isinstance(image, np.ndarray) else open_image(image).image
    pixels = hashlib.sha256(f"{whole.size}".encode() + whole.tobytes()).hexdigest()
    thumb = whole.resize((THUMB, THUMB), Image.Resampling.BOX)
    return pixels, np.asarray(thumb, np.float32).ravel()

"""Settings of replies that all endpoints share: OpenAI's, and extensions that are named in
docs/serving.md (`guidance`, `negative_prompt`, `steps`, `drafts`, `candidates`, `others`, `seed` of
images).
"""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..candidates import MAX_CANDIDATES, seed_of
from ..grammar import Modality
from ..model import Model
from ..sampling import Sampling, SettingError
from ..terminal import temperatures
from .errors import ApiError
from .fields import Fields
from .limits import Limits

RANDOM_BITS = 32  # of a seed that nobody gave: every client's numbers hold it
MAX_DRAFTS = 32  # each is read, and scored for all codes, beside other clients' replies
MAX_USER = 256  # characters of what a client calls its user


@dataclass(frozen=True)
class MostTokens:
    """How many tokens of text a reply may have, and the field that says so."""

    field: str
    number: int


class Settings(Fields):
    """Settings of a reply, or of n of them."""

    model: str | None = None
    n: int = 1
    """Reply number i has the seed `seed` + i, or with candidates the first of them has the seed
    `seed` + i * `candidates`."""
    seed: int | None = None
    """None: another one each time, which the answer tells."""
    stream: bool = False
    partial_images: int = 0
    temperature: float | None = None
    guidance: float | None = None
    negative_prompt: str | None = None
    steps: int | None = None
    drafts: int | None = None
    candidates: int = 1
    """Of how many drawings the best is kept, as the model's own answers judge them."""
    others: bool = False
    """Whether an answer has the candidates that were not kept, too."""
    user: str = ""
    """Users of one client take turns, as clients do."""

    def check(self, name: str, limits: Limits) -> None:
        """Raise ApiError for what the model called `name` or the limits do not have."""
        if self.model not in (None, name):
            raise ApiError(
                404, f"the model {self.model[:80]!r} is not here; {name!r} is",
                "model", "model_not_found",
            )  # fmt: skip
        most_partial = limits.max_partial_images if self.stream else 0
        whole = {"n": (self.n, 1, limits.max_n),
                 "candidates": (self.candidates, 1, MAX_CANDIDATES),
                 "drafts": (1 if self.drafts is None else self.drafts, 1, MAX_DRAFTS),
                 "partial_images": (self.partial_images, 0, most_partial)}  # fmt: skip
        for field, (value, least, most) in whole.items():
            if not least <= value <= most:
                bounds = f"from {least} to {most}" if least < most else f"{most} is what can be"
                how = " without stream" if field == "partial_images" and not self.stream else ""
                raise ApiError(400, f"{field} {value}: {bounds}{how}", field, "invalid_value")
        if self.stream and self.n > 1:
            raise ApiError(400, f"n {self.n}: a stream is of one reply; leave stream or n out",
                           "n", "unsupported_value")  # fmt: skip
        if self.stream and self.candidates > 1:
            raise ApiError(400, f"candidates {self.candidates}: which one is kept is known at the"
                           " end alone; leave stream or candidates out", "candidates",
                           "unsupported_value")  # fmt: skip
        if self.others and self.candidates == 1:
            raise ApiError(400, "others: there are none but the one drawing; ask for candidates,"
                           " or leave others out", "others", "unsupported_value")  # fmt: skip
        if self.negative_prompt is not None:
            checked_words(self.negative_prompt, "negative_prompt", limits)
        if len(self.user) > MAX_USER:
            raise ApiError(400, f"user: at most {MAX_USER} characters", "user", "invalid_value")

    def of_drawings(self) -> dict[str, Any]:
        """Return the settings of drawings that are given and ask for more than words have: 1 is one
        candidate, a code in a pass, and no guidance.
        """
        names = ("guidance", "negative_prompt", "steps", "drafts", "candidates")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value not in (None, 1)}

    def check_used(
        self, constraint: Modality | None, most: MostTokens | None, or_else: str
    ) -> None:
        """Raise ApiError for a setting of drawings where a reply is of words alone, and for a limit
        of words where it is an image alone.

        or_else: how an error goes on behind `leave it`.
        """
        if constraint == "text":
            for name, value in self.of_drawings().items():
                raise ApiError(
                    400, f"{name} {value!r:.80}: this reply is of words alone, which have no such"
                    f" thing; leave {name} {or_else}", name, "unsupported_value",
                )  # fmt: skip
        if constraint == "image" and most is not None:
            raise ApiError(
                400, f"{most.field} {most.number}: this reply is an image alone, and the words that"
                f" plan it are not limited; leave {most.field} {or_else}", most.field,
                "unsupported_value",
            )  # fmt: skip

    def samplings(self, model: Model, most: MostTokens | None = None) -> list[Sampling]:
        """Return the sampling of each of n replies, of its first candidate; raise ApiError for what
        the model's image head does not have.
        """
        if most is not None and not 1 <= most.number <= model.usable_context:
            raise ApiError(
                400, f"{most.number} tokens at most: this model's context takes from 1 to"
                f" {model.usable_context:,}", most.field, "invalid_value",
            )  # fmt: skip
        first = self._sampling(model)
        if most is not None:
            first = replace(first, max_text_tokens=most.number)
        seeds = [seed_of(first, number * self.candidates) for number in range(self.n)]
        return [replace(first, seed=one) for one in seeds]

    def _sampling(self, model: Model) -> Sampling:
        changes: dict[str, Mapping[str, Any]] = {
            "seed": {"seed": secrets.randbits(RANDOM_BITS) if self.seed is None else self.seed},
            "guidance": {"guidance": self.guidance},
            "negative_prompt": {"negative": self.negative_prompt},
            "steps": {"image_steps": self.steps},
            "drafts": {"image_drafts": self.drafts},
            "temperature": temperatures(model, self.temperature),
        }
        try:
            return _changed(model, changes.values())
        except SettingError as error:
            field_of = {key: field for field, keys in changes.items() for key in keys}
            wrong = {field_of.get(key, key) for key in error.problems}
            param = wrong.pop() if len(wrong) == 1 else None
            raise ApiError(400, error.said(field_of), param, "invalid_value") from error


def _changed(model: Model, changes: Iterable[Mapping[str, Any]]) -> Sampling:
    """Return the model's sampling with what is given; raise SettingError where it cannot be."""
    given = {name: value for one in changes for name, value in one.items() if value is not None}
    sampling = replace(model.sampling, **given)
    sampling.check(model.transformer.head.follows, model.transformer.architecture.image.head)
    return sampling


def check_length(num_characters: int, param: str, limits: Limits) -> None:
    """Raise ApiError where words are too many."""
    if num_characters > limits.max_characters:
        said = f"{num_characters:,} characters: {limits.max_characters:,} are the most"
        raise ApiError(400, said, param, "too_long")


def checked_words(words: str, param: str, limits: Limits) -> str:
    """Return the words; raise ApiError where they are too many, or no text of Unicode."""
    check_length(len(words), param, limits)
    try:
        words.encode("utf-8")
    except UnicodeEncodeError as error:
        said = f"half of a character (a lone surrogate) at {error.start}"
        raise ApiError(400, said, param, "invalid_value") from error
    return words

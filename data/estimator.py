"""All that the lengths of documents depend on: what a model reads, and how a source is read.

`measured.py` measures shards with it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from unimodal.document import Document, Image, Part, StoredFile
from unimodal.sequencer import Sequencer
from unimodal.tokenizer.codec import Geometry
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.pixels import ImageError, image_size

from . import codes_member as codes
from .formats import SampleError
from .sizes import ImageRule, bucket

Opener = Callable[[StoredFile], Image]

VERSION = 7  # of what measured.py writes


@dataclass(frozen=True)
class LengthEstimator:
    """All that the lengths of a shard's documents depend on."""

    sequencer: Sequencer
    sequence_length: int
    geometry: Geometry
    """The codec's: which grid of codes an image of which size has."""
    images: ImageRule | None = None
    """How images are resized; None: not at all, and their sides are multiples of the patch."""
    format: str | None = None
    """One of `formats.FORMATS`; None: detect it for each sample."""
    pairs: str | None = None
    """A field of .json: samples that share its value are pairs for edits."""
    split: tuple[float, float] = (0.0, 1.0)
    """Only samples whose hash, as a number in [0, 1), lies from the first to before the second."""
    split_by: str | None = None
    """A field of .json whose value is hashed for that; None: the key."""
    learns_images: bool = True
    """Whether the source's images have a loss weight: a head may make longer what is learned."""
    ignore: tuple[str, ...] = ()
    """Extensions of files that are left unread."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """The fields of .json that fill roles, by role (see SourceConfig)."""

    @property
    def settings(self) -> dict[str, Any]:
        """Return these settings as plain values, and how they are applied as a version."""
        return {
            "version": VERSION,
            "layout": self.sequencer.key,
            "text": self.sequencer.text_tokenizer.hash,
            "image": self.sequencer.codec_hash,
            "sequence_length": self.sequence_length,
            "patch": self.geometry.patch,
            "images": asdict(self.images) if self.images else None,
            "format": self.format,
            "pairs": self.pairs,
            "split": [*map(float, self.split), self.split_by],
            "learns_images": self.learns_images,
            "ignore": self.ignore,
            "fields": dict(self.fields),
        }

    @property
    def key(self) -> str:
        """Return the SHA-256 (hex) of these settings and of how they are applied."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    def sized(self, stored: StoredFile) -> Image:
        """Return the stored image with the grid that it will have, read from its header.

        SampleError when the image cannot be read or the layout has no name for its grid.
        """
        try:
            grid = self._grid(stored)
            self.sequencer.layout.opening(grid)
        except SampleError:
            raise
        except (ImageError, ValueError) as error:
            raise SampleError("bad image", f".{stored.name}: {error}") from error
        return Image(stored=stored, grid=grid, codec_hash=self.sequencer.codec_hash)

    def learned(self, document: Document) -> Document:
        """Return a document with the loss weights that lengths depend on, those of its images."""
        if self.learns_images:
            return document
        parts = (replace(p, weight=0.0) if isinstance(p, Image) else p for p in document.parts)
        return Document(tuple(parts))

    def seen(self, document: Document) -> Document:
        """Return a document as a model with a vision tower learns it: what is given to that is
        context, whatever its weight. SampleError where it has no pixels.
        """
        is_soft = self.sequencer.of(document).is_soft
        return Document(tuple(self._seen(p) if is_soft(p) else p for p in document.parts))

    def _seen(self, image: Part) -> Part:
        stored = image.stored if isinstance(image, Image) else None
        if stored is not None and codes.is_codes(stored.name):
            message = (
                f".{stored.name} has codes alone, and the model's vision tower reads the pixels of "
                "what it is given: take the shards that these were encoded from, or train without "
                "`tower`"
            )
            raise SampleError("no pixels", message)
        return replace(image, weight=0.0)

    def _grid(self, stored: StoredFile) -> Grid:
        if codes.is_codes(stored.name):
            return self._grid_of_codes(stored)
        width, height = image_size(stored.content)
        if self.images is not None:
            width, height = bucket((width, height), self.images)
            return self.geometry.grid_of(height, width)
        try:
            return self.geometry.grid_of(height, width)
        except ValueError as error:
            raise ValueError(f"{error}; set `images`") from error

    def _grid_of_codes(self, stored: StoredFile) -> Grid:
        image, mine = codes.from_bytes(stored.content), self.sequencer.codec_hash
        if image.codec_hash != mine:
            other = f".{stored.name}: codes of tokenizer {str(image.codec_hash)[:12]}"
            message = f"{other}, but the model reads {mine[:12]}: encode the images again"
            raise SampleError("foreign codes", message)
        assert image.grid is not None and image.codes is not None, "codes come with a grid"
        self.sequencer.vocabulary.code_to_id(image.codes)  # a code that is none is an error
        return image.grid

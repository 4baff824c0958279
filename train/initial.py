"""Make the initial state of a run: from scratch, from a bundle, or from its newest checkpoint.

Weights are asked for one parameter at a time, by name, so that a model which fits no single process
can be filled in shards.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from unimodal import config
from unimodal.architecture import Architecture, ImageConfig
from unimodal.bundle import BundleContents, read_contents
from unimodal.heads import head_class
from unimodal.heads.head import ImageHead
from unimodal.heads.mask_schedule import MaskSchedule
from unimodal.hub.new_rows import code_rows, linear_code_rows
from unimodal.rectified_flow import FlowConfig
from unimodal.tensors import StoredTensor, find_tensors
from unimodal.text import TextTokenizer
from unimodal.tokenizer.codec import Codec
from unimodal.transformer import INIT_STD, TransformerConfig
from unimodal.unified import ZEROS, initial_weight, parameter_shapes
from unimodal.vocabulary import Vocabulary

from .checkpoint import Checkpoint

TEXT, VOCABULARY = "text.json", "vocabulary.yaml"
EMBEDDING = "model.embed_tokens.weight"
# Sections of `model` that configure one head each.
SECTIONS = {"masked": MaskSchedule(), "flow": FlowConfig()}
Fill = Callable[[str, tuple[int, ...]], Tensor]
"""(name, shape) -> the float32 tensor that a parameter begins with."""


@dataclass(frozen=True)
class ShapeConfig:
    """Configure the transformer's shape; its number of ids follows from the tokenizers."""

    width: int = 256
    num_layers: int = 6
    num_heads: int = 4
    num_kv_heads: int = 4
    head_width: int = 64
    mlp_width: int = 704
    rope_theta: float = 10_000.0
    qk_norm: bool = True
    tied_head: bool = True
    max_positions: int = 2048
    residual_lambdas: bool = False
    """Each layer reads a learned mix of the residual stream and the embeddings, and projections
    into the stream begin at zero; an export refuses.
    """
    value_embeddings: bool = False
    """Every second layer adds an embedding of each token's id to its values, from a table of its
    own; an export refuses. Not with a head whose codes have no rows.
    """
    head: str = "next_code"
    """How images are predicted: a file of unimodal/heads, or `module:Class` of one's own.
    next_code, masked (which draws an image in a few passes) and scale (of tokenizers with scales,
    in one pass a scale) have a row for each code. For large codebooks of levels (fsq, lfq, bsq), up
    to 2^18 codes, these have rows for levels alone: independent_levels (cheapest), causal_levels
    (level by level)."""
    factorised: bool = False
    """Codes enter, and are scored, by the sum of their quantizer levels' embeddings beside their
    own rows; an export adds them up. Not with a head whose codes have no rows."""
    addresses: bool = False
    """Learned embeddings of row and column are added at the tokens of an image."""
    boxes: bool = False
    """Requests may say what is to stand where, as those of `data scenes --mix layout=` do; the
    bundle says so, and another model refuses boxes."""
    two_way: bool = False
    """The tokens of a user's turn see each other both ways; it is context then, whatever its loss
    weight. With heads that draw code by code: others see images both ways as it is."""
    masked: MaskSchedule | None = None
    """With `head: masked`, what is masked and how images are drawn; null: as the default is."""
    flow: FlowConfig | None = None
    """With `head: flow`, how latents become tokens and are learned; null: as the default is."""

    def transformer(self, num_ids: int) -> TransformerConfig:
        """Return the transformer's shape with so many rows of ids."""
        values = {k: v for k, v in asdict(self).items() if k not in asdict(ImageConfig())}
        del values["factorised"]
        return TransformerConfig(num_ids=num_ids, **values)

    @property
    def uses_levels(self) -> bool:
        """Return whether the model has parameters for the levels of codes."""
        return self.factorised or not (self._code_rows or self.head_kind.reads_latents)

    @property
    def head_kind(self) -> type[ImageHead]:
        """Return the class of the image head."""
        return head_class(self.head, trusted=True)

    @property
    def _code_rows(self) -> bool:
        return self.head_kind.code_rows

    def vocabulary(self, num_text: int, num_codes: int) -> Vocabulary:
        """Return the table of ids of a new model, with the special tokens that its head needs."""
        return Vocabulary.new(num_text, num_codes, self.head_kind.special_tokens)

    def of(
        self, vocabulary: Vocabulary, levels: tuple[int, ...], latent_width: int = 0
    ) -> Architecture:
        """Return the whole model's shape; levels: those of the image tokenizer's codes;
        latent_width: the numbers of its latents, 0 where it has codes.

        ValueError where the model is to have parameters for levels and codes are not made of them,
        where levels are to be added to rows that are not there, and where the head reads codes and
        there are latents, or the other way round, and for settings of another head.
        """
        rows = self._code_rows
        if problem := self._latent_problem(self.head_kind.reads_latents, latent_width):
            raise ValueError(problem)
        if self.factorised and not rows:
            raise ValueError(
                f"model.factorised: with model.head {self.head} codes have no rows that their "
                "levels could be added to; leave it out"
            )
        if self.value_embeddings and not rows:
            raise ValueError(
                f"model.value_embeddings: with model.head {self.head} codes have no rows, so these "
                "tables would have none either; leave it out"
            )
        if self.two_way and not self.head_kind.in_order:
            raise ValueError(
                f"model.two_way: model.head {self.head} does not draw code by code; leave it out"
            )
        if self.uses_levels and not levels:
            asked = "model.factorised" if self.factorised else f"model.head {self.head}"
            other = "leave it out" if self.factorised else "take next_code"
            raise ValueError(
                f"{asked}: the image tokenizer's codes are not made of levels, as those of"
                f" fsq, lfq and bsq are; {other}, or train such a tokenizer"
            )
        used = levels if self.uses_levels else ()
        image = ImageConfig(
            self.head, used, self.addresses, rows, latent_width=latent_width, boxes=self.boxes,
            two_way=self.two_way, **self._section(),
        )  # fmt: skip
        num_ids = vocabulary.size if rows else vocabulary.num_words
        return Architecture(self.transformer(num_ids), vocabulary, image)

    def _section(self) -> dict[str, Any]:
        """Return the field of ImageConfig that configures the head, if there is one.

        Raise ValueError where the section of another head is given.
        """
        wanted = self.head_kind.section
        for name in SECTIONS:
            if getattr(self, name) is not None and name != wanted:
                raise ValueError(
                    f"model.{name}: the settings of another head than model.head {self.head}; "
                    "leave them out"
                )
        return {} if wanted is None else {wanted: getattr(self, wanted) or SECTIONS[wanted]}

    def _latent_problem(self, reads_latents: bool, latent_width: int) -> str | None:
        """Return why the head does not fit what the image tokenizer makes, or None."""
        if reads_latents and not latent_width:
            return (
                f"model.head {self.head} learns latents, and the image tokenizer makes codes: train"
                " one with model.latents or model.pixels, or take next_code"
            )
        if latent_width and not reads_latents:
            return (
                f"model.head {self.head} learns codes, and the image tokenizer makes latents: take"
                " flow, or a tokenizer with a quantizer"
            )
        return None


@dataclass(frozen=True, eq=False)
class InitialState:
    """Hold a model before its first step."""

    text: TextTokenizer
    shape: Architecture
    fill: Fill

    @property
    def vocabulary(self) -> Vocabulary:
        """Return the table of its ids."""
        return self.shape.vocabulary


def parent_of(
    weights: Path,
    shape: ShapeConfig | None,
    text_ids: int | None,
    image: Codec,
    new_tokenizer: bool = False,
) -> BundleContents:
    """Return the bundle that a run begins with. Raises ValueError where the config asks for
    another, or its image tokenizer is not `image` (with `new_tokenizer`: is `image`, or has codes
    of another kind).
    """
    parent = read_contents(weights)
    old = parent.config.architecture
    wrong = shape_problems(old, shape, text_ids, image.levels, image.latent_width)
    wrong += _tokenizer_problems(parent.image_tokenizer, image, new_tokenizer)
    if new_tokenizer and old.transformer.value_embeddings:
        wrong.append("new_tokenizer true: its value embeddings have rows of the old codes")
    if wrong:
        raise ValueError(f"weights {weights} do not fit: {'; '.join(wrong)}")
    return parent


def shape_problems(
    old: Architecture,
    shape: ShapeConfig | None,
    text_ids: int | None,
    levels: tuple[int, ...],
    latent_width: int,
) -> list[str]:
    """Return in what the config asks for another model than the one that a run begins with.

    levels, latent_width: of the image tokenizer.
    """
    wrong = []
    if shape is not None:
        new = shape.of(old.vocabulary, levels, latent_width)
        there = asdict(old.transformer)
        wrong = [
            f"model.{name} {json.dumps(value)} is {json.dumps(there[name])} there"
            for name, value in asdict(new.transformer).items()
            if name in asdict(shape) and there[name] != value
        ]
        if new.image.flow != old.image.flow:
            wrong.append(f"model.flow {new.image.flow} is {old.image.flow} there")
        if new.image.head != old.image.head:
            wrong.append(f"model.head {new.image.head} is {old.image.head} there")
        for name, before, now in (
            ("factorised", old.image.levels, new.image.levels),
            ("addresses", old.image.addresses, new.image.addresses),
            ("boxes", old.image.boxes, new.image.boxes),
        ):
            if before and not now:
                wrong.append(f"model.{name} false is true there")
        if old.image.two_way != new.image.two_way:
            words = [str(one.image.two_way).lower() for one in (new, old)]
            wrong.append("model.two_way {} is {} there".format(*words))
    if text_ids is not None and text_ids != old.vocabulary.num_text:
        wrong.append(f"text_ids {text_ids} is {old.vocabulary.num_text} there")
    return wrong


def _tokenizer_problems(old: Codec, image: Codec, new_tokenizer: bool) -> list[str]:
    """Return what forbids that codes of `image` take the rows of the codes of `old`."""
    if not new_tokenizer:
        way_out = "new_tokenizer=true keeps its codes' rows and teaches them what they mean now"
        return [f"tokenizer is another one there ({way_out})"] if old.hash != image.hash else []
    if old.hash == image.hash:
        return ["new_tokenizer true: tokenizer is the same one there; leave it out"]
    if (old.num_codes, old.levels) == (image.num_codes, image.levels):
        return []
    kinds = [f"{one.num_codes:,} codes of levels {list(one.levels)}" for one in (old, image)]
    return [f"tokenizer has {kinds[1]}, and {kinds[0]} there"]


def from_bundle(weights: Path, parent: BundleContents, shape: ShapeConfig | None) -> InitialState:
    """Begin with a bundle's model and text tokenizer; what `shape` has beyond it begins at zero."""
    whole = parent.config.architecture
    if shape is not None:
        tokenizer = parent.image_tokenizer
        image = shape.of(whole.vocabulary, tokenizer.levels, tokenizer.latent_width).image
        old_image = whole.image
        kept = replace(image, tower=old_image.tower, code_width=old_image.code_width)
        whole = replace(whole, image=kept)
    old = fill_from(find_tensors(weights))
    known = parameter_shapes(parent.config.architecture)

    def fill(name: str, size: tuple[int, ...]) -> Tensor:
        plain = name if name in known or not name.startswith(ZEROS) else None
        return torch.zeros(size) if plain is None else old(plain, size)

    return InitialState(parent.text_tokenizer, whole, fill)


def fill_from(tensors: Mapping[str, StoredTensor]) -> Fill:
    """Return how to fill parameters with weights that lie in safetensors files."""

    def fill(name: str, shape: tuple[int, ...]) -> Tensor:
        with safe_open(tensors[name].path, "pt") as file:
            return file.get_tensor(name).float()

    return fill


def from_scratch(folder: Path, shape: ShapeConfig, image: Codec, seed: int) -> InitialState:
    """Return an untrained transformer, a pure function of the arguments.

    The run's folder must have the text tokenizer (see data/learned_text.py); its ids are those that
    `note_vocabulary` wrote.
    """
    text = _text(folder / TEXT)
    vocabulary = _vocabulary(folder / VOCABULARY, shape.vocabulary(text.num_ids, image.num_codes))
    whole = shape.of(vocabulary, image.levels, image.latent_width)
    width = whole.transformer.width

    def fill(name: str, size: tuple[int, ...]) -> Tensor:
        tensor = initial_weight(name, size, whole.transformer, seed)
        if name == EMBEDDING and whole.image.code_rows:
            rows = linear_code_rows if shape.head_kind.reads_scales else code_rows
            tensor[whole.vocabulary.code_ids] = rows(image, width, seed, INIT_STD)
        return tensor

    return InitialState(text, whole, fill)


def _text(path: Path) -> TextTokenizer:
    try:
        return TextTokenizer.load(path)
    except Exception as error:  # `tokenizers` raises nothing more precise
        raise ValueError(
            f"{path} is no text tokenizer ({error}): remove it, and it is learned from the same "
            "texts"
        ) from error


def _vocabulary(path: Path, fresh: Vocabulary) -> Vocabulary:
    if not path.exists():  # of a run of a version that wrote none
        return fresh
    way_out = "put it back, or remove it, and it is that of this version for the run's tokenizers"
    try:
        found = config.load(Vocabulary, path)
    except ValueError as error:
        raise ValueError(f"{error}\n  {way_out}") from error
    if (found.num_text, found.num_codes) != (fresh.num_text, fresh.num_codes):
        raise ValueError(
            f"{path} is of {found.num_text:,} text ids and {found.num_codes:,} codes, the run's "
            f"tokenizers have {fresh.num_text:,} and {fresh.num_codes:,}: {way_out}"
        )
    return found


def from_checkpoint(checkpoint: Checkpoint, fill: Fill) -> Fill:
    """Return how to fill parameters with the masters of a checkpoint; `fill` gives what the run
    does not train.
    """

    def filled(name: str, shape: tuple[int, ...]) -> Tensor:
        return checkpoint.whole(name) if name in checkpoint.shapes else fill(name, shape)

    return filled


def note_vocabulary(folder: Path, shape: ShapeConfig, num_codes: int) -> None:
    """Write a run's table of ids once: it stays, whatever special tokens a later version has.

    The run's folder must have the text tokenizer.
    """
    path = folder / VOCABULARY
    if not path.exists():
        config.save(shape.vocabulary(_text(folder / TEXT).num_ids, num_codes), path)

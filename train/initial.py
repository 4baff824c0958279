"""What a run of the language model begins from: nothing, a bundle, or its own newest checkpoint.

Weights are asked for one parameter at a time, by name, so that a model which fits no single process
can be filled in parts.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from unimodal.atomic import replacing
from unimodal.bundle import Parts, read_parts
from unimodal.data.sources import SourceConfig, texts
from unimodal.hub.new_rows import code_rows
from unimodal.tensors import Stored, stored
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.transformer import INIT_STD, TransformerConfig, initial
from unimodal.vocabulary import Vocabulary

from .checkpoint import Checkpoint

TEXT_SAMPLES = 20_000  # documents whose texts teach the text tokenizer
TEXT_IDS = 1024
TEXT = "text.json"
EMBEDDING = "model.embed_tokens.weight"
Fill = Callable[[str, tuple[int, ...]], Tensor]
"""(name, shape) -> the float32 tensor that a parameter begins with."""


@dataclass(frozen=True)
class ShapeConfig:
    """The transformer's shape; its number of ids follows from the tokenizers."""

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


@dataclass(frozen=True, eq=False)
class InitialState:
    """A model before its first step."""

    text: TextTokenizer
    vocabulary: Vocabulary
    shape: TransformerConfig
    fill: Fill


def parent_of(
    weights: Path, shape: ShapeConfig | None, text_ids: int | None, image: ImageTokenizer
) -> Parts:
    """The bundle that a run begins with; ValueError where the config asks for another one."""
    parent = read_parts(weights)
    there = asdict(parent.layout.transformer)
    wrong = [
        f"model.{name} {value} is {there[name]} there"
        for name, value in (asdict(shape) if shape else {}).items()
        if there[name] != value
    ]
    if text_ids is not None and text_ids != parent.layout.vocabulary.num_text:
        wrong.append(f"text_ids {text_ids} is {parent.layout.vocabulary.num_text} there")
    if parent.tokenizer.hash != image.hash:
        wrong.append("tokenizer is another one there")
    if wrong:
        raise ValueError(f"weights {weights} do not fit: {'; '.join(wrong)}")
    return parent


def from_bundle(weights: Path, parent: Parts) -> InitialState:
    """A bundle's transformer and tokenizers."""
    layout = parent.layout
    return InitialState(
        parent.text, layout.vocabulary, layout.transformer, fill_from(stored(weights))
    )


def fill_from(tensors: Mapping[str, Stored]) -> Fill:
    """Weights that lie in safetensors files."""

    def fill(name: str, shape: tuple[int, ...]) -> Tensor:
        with safe_open(tensors[name].path, "pt") as file:
            return file.get_tensor(name).float()

    return fill


def from_scratch(
    folder: Path, shape: ShapeConfig, image: ImageTokenizer, seed: int
) -> InitialState:
    """An untrained transformer, a pure function of its arguments; the run's folder has the text
    tokenizer (see `learn_text`).
    """
    text = TextTokenizer.load(folder / TEXT)
    vocabulary = Vocabulary(text.num_ids, image.num_codes)
    config = TransformerConfig(num_ids=vocabulary.size, **asdict(shape))

    def fill(name: str, shape: tuple[int, ...]) -> Tensor:
        tensor = initial(name, shape, config.num_layers, seed)
        if name == EMBEDDING:
            tensor[vocabulary.first_code :] = code_rows(image, config.width, seed, INIT_STD)
        return tensor

    return InitialState(text, vocabulary, config, fill)


def from_checkpoint(checkpoint: Checkpoint, fill: Fill) -> Fill:
    """The master weights of a checkpoint, and `fill` for what the run does not train."""

    def filled(name: str, shape: tuple[int, ...]) -> Tensor:
        return checkpoint.whole(name) if name in checkpoint.shapes else fill(name, shape)

    return filled


def learn_text(folder: Path, sources: Mapping[str, SourceConfig], num_ids: int) -> None:
    """Train a run's text tokenizer once, from the first documents of each source."""
    path = folder / TEXT
    if path.exists():
        return
    trained = TextTokenizer.train(texts(sources, TEXT_SAMPLES), num_ids)
    if trained.num_ids < num_ids:
        note = f"text_ids {num_ids:,}: the texts give no more than {trained.num_ids:,}"
        print(note, file=sys.stderr)
    with replacing(path) as fresh:  # a cut one would stop every later start
        trained.save(fresh)

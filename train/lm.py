"""Train a language model that reads and draws: `unimodal train lm CONFIG`."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from unimodal.bundle import GRID, Model, load, save_bundle
from unimodal.data.loader import Loader, LoaderConfig, PictureEncoder, Samples, State
from unimodal.data.shards import find_shards
from unimodal.document import Picture, Text
from unimodal.drawer import NextCode
from unimodal.generation import Sampling
from unimodal.reader import CodeReader
from unimodal.sequence import Batch, Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.transformer import INIT_STD, Transformer, TransformerConfig
from unimodal.vocabulary import Vocabulary

from . import provenance
from .engine import Engine
from .loop import LoopConfig, prepare, run, set_threads
from .objectives import LossConfig, Losses, language
from .optimizer import OptimizerConfig, build
from .schedule import ScheduleConfig

TEXT_SAMPLES = 20_000  # documents whose texts teach the text tokenizer


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


@dataclass(frozen=True)
class LmRun:
    """A run of the language model."""

    output: Path
    """Directory of the run; the trained bundle is written to `output/bundle`."""
    shards: Path
    """Directory of shards of documents."""
    tokenizer: Path
    """Directory of a trained image tokenizer."""
    schedule: ScheduleConfig
    weights: Path | None = None
    """A bundle to begin from: its transformer and its text tokenizer; None begins from nothing."""
    text_ids: int = 1024
    """Ids of the byte-level BPE, which is trained on the shards' own texts."""
    seed: int = 0
    model: ShapeConfig = field(default_factory=ShapeConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    sampling: Sampling = field(default_factory=Sampling)
    """The finished bundle's defaults for replies; training does not depend on them."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of matrix products; weights, their sums and the loss stay float32. bf16 is for GPUs and for
    CPUs with bfloat16 arithmetic (avx512_bf16 or amx_bf16): others do it in software."""
    compile: bool = False
    """Compile each layer with torch.compile (needs a C++ compiler or a GPU)."""

    def problems(self) -> list[str]:
        """What is wrong with the values, one sentence each."""
        found = [] if self.text_ids >= 256 else [f"text_ids {self.text_ids}: at least 256"]
        if self.seed < 0:
            found.append(f"seed {self.seed}: at least 0")
        if self.precision == "bf16" and not has_bf16():
            found.append(
                "precision bf16: this processor has no bfloat16 arithmetic and would take hundreds "
                "of times longer; leave it out"
            )
        if self.loader.row_length > self.model.max_positions:
            found.append(
                f"loader.row_length {self.loader.row_length} exceeds "
                f"model.max_positions {self.model.max_positions}"
            )
        return found


def has_bf16() -> bool:
    """Whether this machine has a GPU, or a processor with instructions for bfloat16."""
    return torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()


def train(config: LmRun) -> Path:
    """Train (or go on training) and return the directory of the finished bundle."""
    shards = find_shards(config.shards)
    image = ImageTokenizer.load(config.tokenizer)
    samples = Samples(shards)
    grid = _grid(samples, image.patch)
    provenance.data_seeds(config.shards)  # a damaged note of them stops here, not at the end
    parent = _parent(config, image) if config.weights else None
    state = prepare(
        config, config.output, tokenizer=image.hash, weights=parent.hash if parent else None
    )
    provenance.begin(config.output)
    set_threads(config.loop)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if parent is None:
        text = _text_tokenizer(config, samples)
        vocabulary = Vocabulary(text.num_ids, image.num_codes)
        model = fresh(config, vocabulary, image).to(device)
    else:
        text, vocabulary = parent.text, parent.vocabulary
        model = parent.transformer.train().requires_grad_(True).to(device)
    if config.compile:
        for layer in model.model.layers:
            layer.compile()
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    optimizers = build(model, config.optimizer, "model.layers.", dtype)
    engine = Engine(model, optimizers, config.schedule, config.optimizer.clip)
    encode = PictureEncoder(image, device)
    loader = Loader(
        shards,
        Sequencer(vocabulary, text, encode.hash),
        encode,
        config.loader,
        State(**state["data"]) if state else None,
    )

    reader, drawer = CodeReader(), NextCode(vocabulary)

    def objective(batch: Batch) -> Losses:
        with torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16"):
            return language(model, reader, drawer, batch.to(device), config.loss)

    run(
        config.output,
        config.loop,
        engine,
        ((batch, asdict(place)) for batch, place in loader),
        objective,
        state["step"] if state else 0,
    )
    before = provenance.read(config.weights or config.tokenizer)
    card = provenance.card(config, device, before) | {"documents": len(samples)}
    parts = model.cpu(), vocabulary, text, image.cpu()
    return save_bundle(
        config.output / "bundle",
        *parts,
        card,
        context=config.model.max_positions,
        grid=grid,
        sampling=config.sampling,
    )


def _grid(samples: Samples, patch: int) -> Grid:
    """The grid of the pictures in the shards, by the first one: what the bundle shall draw."""
    for number in range(min(len(samples), TEXT_SAMPLES)):
        for part in samples.document(number).parts:
            if isinstance(part, Picture) and part.grid is not None:
                return part.grid
            if isinstance(part, Picture) and part.pixels is not None:
                height, width = part.pixels.shape[:2]
                if height % patch or width % patch:
                    raise ValueError(
                        f"{samples.name(number)}: a picture of {width} x {height} pixels; the "
                        f"tokenizer takes sides of whole {patch}-pixel patches"
                    )
                return Grid(height // patch, width // patch)
    return GRID


def _parent(config: LmRun, image: ImageTokenizer) -> Model:
    """The model that the run begins with; ValueError where the config asks for another one."""
    assert config.weights is not None, "asked for only where there is one"
    parent = load(config.weights)
    shape = asdict(parent.transformer.config)
    wrong = [
        f"model.{name} {value} is {shape[name]} there"
        for name, value in asdict(config.model).items()
        if shape[name] != value
    ]
    text_ids = parent.card["config"].get("text_ids")
    if text_ids != config.text_ids:
        wrong.append(f"text_ids {config.text_ids} is {text_ids} there")
    if parent.tokenizer.hash != image.hash:
        wrong.append(f"tokenizer {config.tokenizer} is another one there")
    if wrong:
        raise ValueError(f"weights {config.weights} do not fit: {'; '.join(wrong)}")
    return parent


def fresh(config: LmRun, vocabulary: Vocabulary, image: ImageTokenizer) -> Transformer:
    """An untrained transformer, a pure function of the config and the image tokenizer."""
    transformer = Transformer(
        TransformerConfig(num_ids=vocabulary.size, **asdict(config.model)), config.seed
    )
    with torch.no_grad():
        rows_VD = code_rows(image, config.model.width, config.seed)
        transformer.model.embed_tokens.weight[vocabulary.first_code :] = rows_VD
    return transformer


def code_rows(image: ImageTokenizer, width: int, seed: int) -> torch.Tensor:
    """First embedding rows (num_codes, width) of the image codes: alike for codes whose vectors are
    alike.

    Random Fourier features of a Gaussian kernel (Rahimi and Recht, 2007, alg. 1): sqrt(2) cos(w v +
    b) with w ~ N(0, I), scaled to the standard deviation of every other row.
    """
    vectors_Vd = image.quantizer.decode(torch.arange(image.num_codes)).float()
    rng = np.random.Generator(np.random.Philox(key=[seed, 0]))
    w_dD = torch.from_numpy(rng.standard_normal((vectors_Vd.shape[1], width))).float()
    b_D = torch.from_numpy(rng.uniform(0, 2 * np.pi, width)).float()
    return INIT_STD * 2**0.5 * torch.cos(2 * vectors_Vd @ w_dD + b_D)


def _text_tokenizer(config: LmRun, samples: Samples) -> TextTokenizer:
    """The run's text tokenizer, trained once from the first documents of the shards."""
    path = config.output / "text.json"
    if not path.exists():
        part = path.with_name(f"{path.name}.part")  # a cut one would stop every later start
        trained = TextTokenizer.train(_texts(samples), config.text_ids)
        if trained.num_ids < config.text_ids:
            note = f"text_ids {config.text_ids:,}: the texts give no more than {trained.num_ids:,}"
            print(note, file=sys.stderr)
        trained.save(part)
        part.replace(path)
    return TextTokenizer.load(path)


def _texts(samples: Samples) -> Iterator[str]:
    for number in range(min(len(samples), TEXT_SAMPLES)):
        for part in samples.document(number).parts:
            if isinstance(part, Text):
                yield part.text

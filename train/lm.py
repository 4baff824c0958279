"""Train a language model that reads and draws: `unimodal train lm CONFIG`."""

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from unimodal.bundle import GRID, Model, load, save_bundle
from unimodal.data.folder import data_seeds
from unimodal.data.lengths import shards_hash
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.pictures import patch_problems
from unimodal.data.plan import State
from unimodal.data.remote import local_shards
from unimodal.data.rows import PictureEncoder
from unimodal.data.sources import SourceConfig, mixtures, texts
from unimodal.data.tar import ShardError
from unimodal.drawer import NextCode
from unimodal.generation import Sampling
from unimodal.reader import CodeReader
from unimodal.rows import code_rows
from unimodal.sequence import Batch, Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.transformer import INIT_STD, Transformer, TransformerConfig
from unimodal.vocabulary import Vocabulary

from . import provenance
from .engine import Engine
from .heldout import HeldOut, HeldOutConfig
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
    sources: dict[str, SourceConfig]
    """What is learned from, by name."""
    tokenizer: Path
    """Directory of a trained image tokenizer."""
    schedule: ScheduleConfig
    weights: Path | None = None
    """A bundle to begin from: its transformer and its text tokenizer; None begins from nothing."""
    text_ids: int = 1024
    """Ids of the byte-level BPE, which is trained on the sources' own texts."""
    seed: int = 0
    model: ShapeConfig = field(default_factory=ShapeConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
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
        if not self.sources:
            found.append("sources: name at least one, as sources.NAME.shards=FOLDER")
        else:
            try:
                mixtures(self.sources, self.loader.stages, self.loader.pictures)
            except ValueError as error:
                found.append(f"loader: {error}")
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
    paths, _ = _shards(config.sources), _shards(config.held_out.sources)
    image = ImageTokenizer.load(config.tokenizer)
    if problems := patch_problems(config.loader.pictures, image.patch):
        raise ValueError(f"loader.{problems[0]}")
    for folder in _folders(config):
        data_seeds(folder)  # a damaged note of them stops here, not at the end
    parent = _parent(config, image) if config.weights else None
    inputs: dict[str, Any] = {f"shards of {name}": shards_hash(paths[name]) for name in paths}
    inputs |= {"tokenizer": image.hash, "weights": parent.hash if parent else None}
    state = prepare(config, config.output, inputs)
    provenance.begin(config.output)
    set_threads(config.loop)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, text, vocabulary = _beginning(config, image, parent)
    model.to(device)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    optimizers = build(model, config.optimizer, "model.layers.", dtype)
    engine = Engine(model, optimizers, config.schedule, config.optimizer.clip)
    encode = PictureEncoder(image, device)
    sequencer = Sequencer(vocabulary, text, encode.hash)
    held_out = HeldOut(config.held_out, sequencer, encode, config.loader)
    loader = Loader(
        config.sources,
        sequencer,
        encode,
        config.loader,
        State(**state["data"]) if state else None,
        quarantine=config.output / "quarantine.jsonl",
        measurers=os.cpu_count() or 1,
    )
    (config.output / "sources.json").write_text(json.dumps(loader.notes(), indent=1) + "\n")
    for line in loader.summary():
        print(line, file=sys.stderr)

    reader, drawer, sources = CodeReader(), NextCode(vocabulary), loader.rows.sources

    def objective(batch: Batch) -> Losses:
        with torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16"):
            moved = batch.to(device)
            return language(model, reader, drawer, moved, config.loss, sources=sources)

    def measure(done: int) -> dict[str, float]:
        due = done % config.held_out.every_steps == 0 or done == config.schedule.num_steps
        seen = {"documents": loader.seen.documents, "bad_documents": sum(loader.seen.bad.values())}
        return seen | (held_out(objective) if due else {})

    run(
        config.output,
        config.loop,
        engine,
        ((batch, asdict(place)) for batch, place in loader),
        objective,
        state["step"] if state else 0,
        measure,
    )
    before = provenance.read(config.weights or config.tokenizer)
    card = provenance.card(config, device, _folders(config), before)
    card["documents"] = loader.documents
    parts = model.cpu(), vocabulary, text, image.cpu()
    return save_bundle(
        config.output / "bundle",
        *parts,
        card,
        context=config.model.max_positions,
        grid=loader.rows.grid() or GRID,
        sampling=config.sampling,
    )


def _beginning(
    config: LmRun, image: ImageTokenizer, parent: Model | None
) -> tuple[Transformer, TextTokenizer, Vocabulary]:
    """What is trained: an untrained transformer with a text tokenizer of its own, or the parent."""
    if parent is None:
        text = _text_tokenizer(config)
        vocabulary = Vocabulary(text.num_ids, image.num_codes)
        model = fresh(config, vocabulary, image)
    else:
        text, vocabulary = parent.text, parent.vocabulary
        model = parent.transformer.train().requires_grad_(True)
    if config.compile:
        for layer in model.model.layers:
            layer.compile()
    return model, text, vocabulary


def _shards(sources: dict[str, SourceConfig]) -> dict[str, list[Path]]:
    """The shards of each source; ValueError with everything that is missing."""
    found, problems = {}, []
    for name, source in sources.items():
        try:
            found[name] = local_shards(source.shards)
        except ShardError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ValueError("\n  ".join(problems))
    return found


def _folders(config: LmRun) -> list[Path]:
    places = [Path(source.shards) for source in config.sources.values()]
    return [place.parent if place.suffix == ".tar" else place for place in places]


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
        rows_VD = code_rows(image, config.model.width, config.seed, INIT_STD)
        transformer.model.embed_tokens.weight[vocabulary.first_code :] = rows_VD
    return transformer


def _text_tokenizer(config: LmRun) -> TextTokenizer:
    """The run's text tokenizer, trained once from the first documents of each source."""
    path = config.output / "text.json"
    if not path.exists():
        part = path.with_name(f"{path.name}.part")  # a cut one would stop every later start
        trained = TextTokenizer.train(texts(config.sources, TEXT_SAMPLES), config.text_ids)
        if trained.num_ids < config.text_ids:
            note = f"text_ids {config.text_ids:,}: the texts give no more than {trained.num_ids:,}"
            print(note, file=sys.stderr)
        trained.save(part)
        part.replace(path)
    return TextTokenizer.load(path)

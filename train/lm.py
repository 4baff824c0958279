"""Train a language model that reads and draws: `unimodal train lm CONFIG`."""

import json
import resource
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from unimodal.bundle import BundleContents, read_contents
from unimodal.bundle_config import BundleConfig
from unimodal.codec import ImageCodec
from unimodal.data.asking import without_turns
from unimodal.data.joined import Together, joined
from unimodal.data.learned_text import TEXT_IDS, learn_text
from unimodal.data.lengths import length_measure
from unimodal.data.loader import Loader, places_measured
from unimodal.data.peers import cache_mates
from unimodal.data.seen import Seen
from unimodal.data.streams import Found
from unimodal.heads import head_class
from unimodal.manifest import MANIFEST
from unimodal.sampling import Sampling
from unimodal.sequencer import Sequencer
from unimodal.unified import UnifiedModel

from . import checkpoint, flops, heap, heldout, lora, metrics, place, precision, provenance
from .checkpoint import Checkpoint
from .engine import Engine
from .finish import bundle_bytes, finish
from .given import Given, begin_published, check, find_shards, folders, read_given
from .heldout import HeldOut
from .initial import (
    TEXT,
    InitialState,
    ShapeConfig,
    from_bundle,
    from_checkpoint,
    from_scratch,
    note_vocabulary,
)
from .learner import LanguageLearner
from .lock import Lock, held
from .loop import fit_threads, prepare, run, set_threads
from .mirror import send_finished
from .plan.memory import recomputed_layers
from .ranks import Ranks, connect
from .run import LmRun
from .sequence_parallel import SequenceGroup
from .spikes import going_back
from .tower import copy_tower, with_tower
from .zero import Build, engine, sharded

NO_TURNS = (
    "captions teach no turns: what learns from them alone draws nothing when it is asked to, and "
    "babbles in chat. Read them as conversations (sources.NAME.format=request), or add a source of "
    "conversations"
)


def train(config: LmRun, accept_change: bool = False) -> Path:
    """Train (or go on training) and return the directory of the finished bundle.

    `accept_change`: settings and shards that change what is learned may be others than at the last
    start (see changes.py).
    """
    ranks = connect(config.engine.timeout_s)
    config = precision.resolved(config, ranks)
    ranks.together(lambda: check(config, ranks.world_size))
    crew = Together(ranks, cache_mates(ranks), config.output, ranks.workers)
    shards = find_shards(config, ranks, crew.mates, ranks.workers)
    ranks.together(lambda: begin_published(config) if ranks.is_first else None)
    given = ranks.together(lambda: read_given(config, ranks.world_size, shards))
    ranks = replace(ranks, sequence_parallel=config.engine.sequence_parallel)
    with held(config.output, ranks) as lock:
        return going_back(lambda: _train(config, given, crew, ranks, lock, accept_change))


def _train(
    config: LmRun, given: Given, crew: Together, ranks: Ranks, lock: Lock | None,
    accept_change: bool,
) -> Path:  # fmt: skip
    newest = prepare(config, config.output, given.inputs, ranks, accept_change)
    ranks.together(lambda: _opened(config, given) if ranks.is_first else None)
    set_threads(config.loop)
    heap.keep_freed()
    initial = _initial(config, given, newest)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # The loader encodes in a thread, to which "cuda" alone would be the machine's first GPU.
    gpu = torch.device(device, ranks.local_rank) if device == "cuda" else device
    # Worker processes encode on the CPU; the tokenizer's weights there are a copy of their own.
    codec = ImageCodec(given.image, "cpu" if config.loop.data_workers else gpu)
    sequencer = _sequencer(config, initial, codec)
    _measure_shards(config, given.shards, sequencer, codec, crew)
    loader = _loader(config, given.shards, sequencer, codec, newest, ranks)
    held_out = ranks.together(
        lambda: HeldOut(config.held_out, sequencer, codec, config.loader, given.shards)
    )
    trained = _engine(config, initial, loader.row_builder.sources, device, ranks)
    rows = config.engine.micro_batch_rows or config.rank_rows(ranks.world_size)
    part = config.loader.sequence_length // ranks.sequence_parallel
    fit_threads(config.loop, trained.learner.model, rows * part)
    if newest is not None:
        trained.restore(newest)
    elif config.held_out.sources:
        found = held_out(lambda batch: trained.measure(batch, None))
        ranks.together(lambda: heldout.note(config.output, found) if ranks.is_first else None)
    begun = heldout.before_run(config.output)

    before = metrics.last(config.output, newest.step if newest else 0)

    def measure(done: int, step_s: float, counts: Mapping[str, float]) -> dict[str, float]:
        due = done % config.held_out.every_steps == 0 or done == config.schedule.num_steps
        seen = _seen(loader, before, ranks)
        found = held_out(lambda batch: trained.measure(batch, None)) if due else {}
        return seen | found | _speed(trained.learner.model, counts, step_s, ranks)

    about = _titles(loader), initial.text.hash
    run(
        config.output,
        config.loop,
        trained,
        ((batch, place.noted(state, *about)) for batch, state in loader),
        newest.step if newest else 0,
        measure,
        config.engine.micro_batch_rows,
        lock,
        bundle_bytes(initial.shape, given.base) + given.image.num_bytes,
    )
    lines = _read_lines(loader, ranks)
    ranks.together(
        lambda: _finish(config, given, initial, loader, device) if ranks.is_first else None
    )
    if ranks.is_first:
        last = metrics.last(config.output, config.schedule.num_steps)
        lines += heldout.compared(begun, last)
        print(*lines, sep="\n", file=sys.stderr)
    return config.output / "bundle"


def _opened(config: LmRun, given: Given) -> None:
    """Write into the run's directory what all ranks begin with."""
    provenance.begin(config.output)
    copy_tower(config.output, given.tower)
    if given.parent is None:
        ids = config.text_ids or TEXT_IDS
        learn_text(config.output / TEXT, config.sources, ids, given.shards)
        note_vocabulary(config.output, config.model or ShapeConfig(), given.image.num_codes)


def _initial(config: LmRun, given: Given, newest: Checkpoint | None) -> InitialState:
    if given.parent is not None and given.weights is not None:
        initial = from_bundle(given.weights, given.parent, config.model)
    else:
        shape = config.model or ShapeConfig()
        initial = from_scratch(config.output, shape, given.image, config.seed)
    initial = with_tower(initial, config.output, given.tower, config.seed)
    if config.lora is not None:
        initial = replace(initial, fill=lora.fill_adapters(initial.fill, config.seed))
    if newest is not None:
        place.check_text(newest.state["data"], initial.text.hash, f"{config.output}/{TEXT}")
        initial = replace(initial, fill=from_checkpoint(newest, initial.fill))
    return initial


def _sequencer(config: LmRun, initial: InitialState, codec: ImageCodec) -> Sequencer:
    kind = head_class(initial.shape.image.head, _trusts(config))
    with torch.device("meta"):
        inputs = kind(initial.shape).inputs
    shape = initial.shape
    return Sequencer(
        initial.vocabulary, initial.text, codec.hash, inputs, shape.max_side, shape.image.tower,
        boxes=shape.image.boxes, two_way=shape.image.two_way,
    )  # fmt: skip


def _trusts(config: LmRun) -> bool:
    """Return whether the user's own config names the image head, not an untrusted bundle alone."""
    return config.model is not None


def _measure_shards(
    config: LmRun, shards: Found, sequencer: Sequencer, codec: ImageCodec, crew: Together
) -> None:
    """Measure all shards that a run reads, together, so that loaders find what they need."""
    measured = [(config.sources, config.loader)]
    plain = config.loader.plain
    measured += [({name: source}, plain) for name, source in config.held_out.sources.items()]
    for sources, loader in measured:
        for where, estimator in places_measured(sources, loader, sequencer, codec.geometry):
            joined(shards[where], length_measure(estimator), crew)


def _loader(
    config: LmRun, shards: Found, sequencer: Sequencer, codec: ImageCodec,
    newest: Checkpoint | None, ranks: Ranks,
) -> Loader:  # fmt: skip
    """Return this rank's loader of shards that have been measured."""
    name = "quarantine.jsonl" if ranks.is_first else f"quarantine_{ranks.rank}.jsonl"
    bad = config.output / name if ranks.counts_rows else None

    def made() -> Loader:
        loader = Loader(
            config.sources, sequencer, codec, config.loader, None, ranks.data_rank,
            ranks.data_size, config.loop.data_workers, bad, found=shards,
            micro_batch_rows=config.engine.micro_batch_rows or 1,
        )  # fmt: skip
        if newest is not None:
            loader.go_to(place.found(newest.state["data"], _titles(loader)))
        if ranks.is_first:
            loader.check({"text": config.loss.text, "image": config.loss.image})
        return loader

    loader = ranks.together(made)
    if ranks.is_first:
        (config.output / "sources.json").write_text(json.dumps(loader.notes(), indent=1) + "\n")
        padded = config.padding_note(ranks.world_size)
        for line in [*loader.summary(), *config.unreached(), *filter(None, [padded])]:
            print(line, file=sys.stderr)
        if newest is None and without_turns(loader.notes().values()):
            print(NO_TURNS, file=sys.stderr)
    return loader


def _titles(loader: Loader) -> list[str]:
    return [stream.title for stream in loader.planner.streams]


def _engine(
    config: LmRun, initial: InitialState, sources: tuple[str, ...], device: str, ranks: Ranks
) -> Engine:
    """The model on its device, or in parts on those of all ranks, with its optimizer."""
    bf16 = config.precision in ("bf16", "fp8")
    rows = config.rank_rows(ranks.world_size)
    settings = config.engine.sharding(rows, config.optimizer.clip, bf16)

    has_frozen_rows = config.lora is not None and lora.has_new_rows(initial.shape)

    length = config.loader.sequence_length // ranks.sequence_parallel
    tokens = (config.engine.micro_batch_rows or rows) * length
    recomputed = recomputed_layers(
        config.engine, initial.shape.transformer, tokens, 2 if bf16 else 4
    )

    def make() -> UnifiedModel:
        bare = UnifiedModel(initial.shape, 0, recomputed, _trusts(config))
        return bare if config.lora is None else lora.adapted(bare, config.lora)

    model = sharded(Build(make, initial.fill), settings, device, ranks)
    if config.precision == "fp8":
        precision.in_float8(model.model.layers)
    learner = LanguageLearner(
        model, config.loss, sources, device,
        autocast=bf16 and settings is None, attention=config.engine.attention,
        frozen_rows=initial.vocabulary.num_text if has_frozen_rows else 0,
        group=SequenceGroup.of(ranks, config.engine.timeout_s),
    )  # fmt: skip
    return engine(learner, config.optimizer, config.schedule, ranks, settings, config.engine, bf16)


def _seen(loader: Loader, before: Mapping[str, int], ranks: Ranks) -> dict[str, int]:
    """Return how many documents the run has met, on all ranks and before it was resumed."""
    seen = loader.seen if ranks.counts_rows else Seen()
    mine = [seen.documents, seen.bad.total()]
    names = "documents", "bad_documents"
    summed = ranks.all_reduce_sum(torch.tensor(mine, dtype=torch.float64)).tolist()
    return {n: before.get(n, 0) + int(more) for n, more in zip(names, summed, strict=True)}


def _read_lines(loader: Loader, ranks: Ranks) -> list[str]:
    """Say what all ranks have read since the run was begun or resumed."""
    seen = loader.seen if ranks.counts_rows else Seen()
    parts = ranks.all_gather(json.dumps(seen.plain()))
    return Seen.of(map(json.loads, parts)).lines(loader.sizes)


def _speed(
    model: UnifiedModel, counts: Mapping[str, float], step_s: float, ranks: Ranks
) -> dict[str, float]:
    """Tokens of documents a second of all ranks; FLOPs a second and memory of this one."""
    head_ids = {"text": model.architecture.vocabulary.num_words, "image": model.head.num_targets}
    per_s = flops.step_flops(model.config, counts, head_ids) / step_s / ranks.world_size
    peak = flops.peak_flops()
    if torch.cuda.is_available():
        memory_bytes = torch.cuda.max_memory_allocated()
    else:
        memory_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "tokens_per_s": counts["tokens"] / step_s,
        "flops_per_s": per_s,
        "memory_gb": memory_bytes / 1e9,
        **({"mfu": per_s / peak} if peak else {}),
    }


def snapshot(config: LmRun, output: Path, step: int | None = None) -> Path:
    """Write a checkpoint of a run as a bundle, whether the run goes on or not: that of `step`, or
    the newest one.

    Raises ValueError where there is none.
    """
    whole = checkpoint.found(config.output)
    there = [one for one in whole if step in (None, checkpoint.step_of(one))]
    if not there:
        steps = ", ".join(str(checkpoint.step_of(one)) for one in whole)
        of_step = "" if step is None else f" of step {step}: its steps are {steps or 'none'}"
        raise ValueError(f"{config.output} has no checkpoint{of_step or ' yet'}")
    last = Checkpoint(there[-1])
    given = read_given(config, config.engine.sequence_parallel)
    initial = _initial(config, given, None)
    codec = ImageCodec(given.image)
    sequencer = _sequencer(config, initial, codec)
    loader = Loader(config.sources, sequencer, codec, config.loader, found=given.shards)
    return _bundle(config, given, initial, loader, last, output, "cpu")


def _finish(
    config: LmRun, given: Given, initial: InitialState, loader: Loader, device: str
) -> None:
    """Write the bundle of the last checkpoint, and the adapter beside it.

    Raises ValueError for a run of which no step had a target.
    """
    log = metrics.read(config.output)  # which may be gone, and says nothing then
    if log and not any(step["targets_text"] or step["targets_image"] for step in log):
        raise ValueError(
            f"{config.output}: no step had a target, so nothing was learned and no bundle is "
            "written; quarantine.jsonl and sources.json there say what became of the samples"
        )
    last = checkpoint.newest(config.output)
    assert last is not None, "the last step was saved"
    bundle = _bundle(config, given, initial, loader, last, config.output / "bundle", device)
    send_finished(config.loop.mirror, bundle, MANIFEST)
    if config.lora is not None:
        lora.write_adapter(
            config.output / "adapter", last, config.lora, read_contents(bundle).config
        )


def _bundle(
    config: LmRun, given: Given, initial: InitialState, loader: Loader, last: Checkpoint,
    output: Path, device: str,
) -> Path:  # fmt: skip
    """A checkpoint with all that makes it a model."""
    before = provenance.read(given.weights or given.tokenizer)
    card = provenance.card(config, device, folders(config), before)
    card["documents"] = loader.documents
    shape, parent = initial.shape, given.parent and given.parent.config
    grid = loader.row_builder.grid() or given.image.geometry.default_grid
    stored_config = BundleConfig(
        shape.transformer, shape.vocabulary, grid,
        config.sampling or (parent.sampling if parent else Sampling()),
        shape.transformer.max_positions, given.image.hash, shape.image,
        parent.fit if parent else None,
    )  # fmt: skip
    contents = BundleContents(stored_config, initial.text, given.image.cpu(), card)
    merge = None if config.lora is None else lora.Merge(given.base, config.lora)
    return finish(output, last, contents, given.base, merge)

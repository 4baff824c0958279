"""Select what a bundle does right, as shards to learn from: `unimodal train select CONFIG`.

In: a bundle, prompts and a judge, as for `unimodal train rl`. Out: a folder of shards of codes, a
conversation for each prompt whose reply was worth enough: rejection sampling (Llama 2,
arXiv:2307.09288, section 3.2.3). Trained on beside new examples, they keep what rewards taught.

Prompt number n is asked once, and its noise depends on n alone. The note of a shard says how many
were asked until it was full, so the same command goes on where it was stopped.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from unimodal import noted
from unimodal.bundle import load
from unimodal.data.folder import ENCODED, claim, data_seeds, write_json
from unimodal.data.shards import ShardWriter, shard_name
from unimodal.document import Document
from unimodal.eval.report import bar
from unimodal.grammar import Modality
from unimodal.model import Model
from unimodal.sampling import Sampling

from .actor import sampled
from .prompts import Prompts, noise_seeds
from .rewards import Judge, judge_of
from .rollouts import with_pixels
from .run import PromptsConfig, RewardConfig
from .shard_prompts import prompts_of

ASKED_IN_VAIN = 2000  # prompts in a row, after which nothing more is hoped for
FACTS = ("second", "planned")


@dataclass(frozen=True)
class SelectionRun:
    """Configure what is asked, judged and kept."""

    output: Path
    """The folder of shards."""
    weights: Path
    """The bundle that is asked."""
    prompts: PromptsConfig
    reward: RewardConfig
    replies: int = 5000
    """How many are kept."""
    most_asked: int | None = None
    """How many prompts are asked at most, however few replies are kept; null: until there are."""
    least: float = 1.0
    """The reward from which on a reply is kept."""
    facts: tuple[str, ...] = ()
    """Of `reward.scenes`, what has to hold too where it is known: `second`, that the second reader
    agrees, `planned`, that the plan in words is right."""
    sampling: Sampling | None = None
    """How replies are sampled, but for the seed; null: as the bundle says."""
    modality: Modality | None = None
    """The modality constraint of replies: `text`, `image`, or null for what the model chooses."""
    batch: int = 64
    """Prompts that are asked at once."""
    shard_samples: int = 2500
    seed: int = 0
    """Of the noise of replies."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        counted = ("replies", "batch", "shard_samples")
        found = [f"{name} {n}: at least 1" for name in counted if (n := getattr(self, name)) < 1]
        found += [f"facts {one}: one of {', '.join(FACTS)}" for one in self.facts
                  if one not in FACTS]  # fmt: skip
        if self.facts and self.reward.scenes is None:
            found.append("facts: they are told by reward.scenes; leave them out")
        if self.reward.scenes is not None and not self.prompts.mix:
            found.append("reward.scenes: it judges prompts.mix; with sources give python, command")
        shape = self.reward.scenes
        if shape is not None and self.least > shape.right:
            found.append(f"least {self.least:g}: reward.scenes gives {shape.right:g} at most")
        if self.most_asked is not None and self.most_asked < 1:
            found.append(f"most_asked {self.most_asked}: at least 1")
        if self.sampling is not None and self.sampling.seed:
            found.append(f"sampling.seed {self.sampling.seed}: each reply has its own, from `seed`")
        return found if 0 <= self.seed < 2**40 else [*found, f"seed {self.seed}: 0 to 2^40"]


@dataclass(frozen=True)
class Note:
    """The Note of a finished shard: how many prompts had been asked, and replies kept, by then."""

    asked: int
    kept: int


def select(run: SelectionRun) -> Note:
    """Fill the folder, or the rest of it, and return how many were asked and kept.

    Raise ValueError where the folder holds something else, and where nothing is right, unless
    `most_asked` says when that is enough.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ValueError("train select is one process: launch it without torchrun or deepspeed")
    judge = judge_of(run.reward)
    model = load(run.weights, "cuda" if torch.cuda.is_available() else "cpu")
    if model.codec.content != "codes":
        raise ValueError(f"weights {run.weights}: it draws without codes, and shards hold codes")
    prompts = prompts_of(run.prompts, model, run.modality, run.seed)
    claim(run.output, ENCODED, _settings(run, model))
    note, number = Note(0, 0), 0
    while (path := _note_of(run.output, number)).exists():
        note = Note(**noted.parsed(path, path.read_bytes(), "remove the folder and begin again"))
        number += 1
    kept = _kept(run, model, prompts, judge, note)
    with bar(run.replies, "replies kept") as advance:
        for _ in range(note.kept):
            advance()
        while note.kept < run.replies:
            before, wanted = note, min(run.shard_samples, run.replies - note.kept)
            with ShardWriter(run.output, wanted, first=number) as writer:
                for asked, document in islice(kept, wanted):
                    writer.write(f"{asked:09d}", document, model.codec.num_codes)
                    note = Note(asked + 1, note.kept + 1)
                    advance()
            if note.asked == before.asked:
                break  # all were asked
            write_json(_note_of(run.output, number), asdict(note))
            number += 1
    return note


def _settings(run: SelectionRun, model: Model) -> dict[str, Any]:
    """Return what the shards are made with, as JSON; `data_seeds` and `tokenizer` are read again by
    those who train on them.
    """
    seeds = [run.prompts.seed] if run.prompts.mix else []
    for source in run.prompts.sources.values():
        seeds += data_seeds(source.folder)
    told = asdict(replace(run, weights=Path(model.hash)))
    apart = ("output", "replies", "most_asked", "batch")  # may be others where it goes on
    selected = {name: value for name, value in told.items() if name not in apart}
    return {
        "tokenizer": model.codec.hash, "target_pixels": None, "max_aspect_ratio": None,
        "data_seeds": sorted({*seeds}), **json.loads(json.dumps(selected, default=str)),
    }  # fmt: skip


def _note_of(folder: Path, number: int) -> Path:
    return (folder / shard_name(number)).with_suffix(".json")


def _kept(
    run: SelectionRun, model: Model, prompts: Prompts, judge: Judge, note: Note
) -> Iterator[tuple[int, Document]]:
    """Yield the number of each prompt that was answered well, and the conversation, up to
    `most_asked`.

    Raise ValueError where no more are and nothing says how many to ask.
    """
    sampling, last = run.sampling or model.sampling, note.asked - 1
    most = sys.maxsize if run.most_asked is None else run.most_asked
    for first in range(note.asked, most, run.batch):
        numbers = range(first, min(first + run.batch, most))
        asked = [prompts(number) for number in numbers]
        seeds = [noise_seeds(run.seed, number, 1)[0] for number in numbers]
        samplings = [replace(sampling, seed=seed) for seed in seeds]
        documents = [prompt.document for prompt in asked]
        replies = sampled(model, documents, samplings, run.modality, run.batch)
        parts = with_pixels(model, [one for one, _ in replies])
        marks = judge(asked, parts)
        for at, mark in enumerate(marks):
            holds = all(mark.facts.get(fact, 1.0) == 1.0 for fact in run.facts)
            if mark.reward >= run.least and holds:
                last = first + at
                given = (replace(part, weight=0.0) for part in documents[at].parts)
                yield last, Document((*given, *parts[at]))  # the reply alone is learned
        if first + run.batch - last > ASKED_IN_VAIN:
            if run.most_asked is not None:
                return
            raise ValueError(
                f"of prompts {last + 1} to {first + run.batch - 1} none was answered well enough "
                f"(least {run.least}): ask what the model can do, or less of it"
            )

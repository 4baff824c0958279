"""The run of `train lm` that a lesson is: its shards, its settings, and how long it takes here.

1. `images/` holds the taught images on the model's canvas. They are read as requests, half of them
   asking for the image, half asking what it shows. A key has four phrasings of each kind, so an
   image stands there under several keys: with four it may learn the phrasing, not the caption.
2. `replay/` holds conversations of the world of scenes, made for this run alone: about as many as
   it reads. Their seed is one that no evaluation uses.
3. `own/` holds the bundle's own right drawings and edits (rl/selection.py), half of what is
   replayed: what rewards taught it, and how it plans, stands in no conversation that is made.
4. The shares of both are weights of sources, so they are exact in tokens.
"""

import io
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from PIL import Image as PILImage

from unimodal.data.command import SceneShards, mix_of, unfinished, write_shards
from unimodal.data.folder import SCENES, claim
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.shards import Shard, ShardWriter, shard_name
from unimodal.data.sources import SourceConfig
from unimodal.eval.captioned import Captioned
from unimodal.eval.scenes import canvas_of
from unimodal.model import Model

from ..learner import TOTAL, LanguageLearner
from ..loop import LoopConfig
from ..lora import LoraConfig
from ..optimizer import OptimizerConfig
from ..precision import has_bf16
from ..rl.run import PromptsConfig, RewardConfig, ScenesReward
from ..rl.selection import SelectionRun, select
from ..run import LmRun
from ..schedule import ScheduleConfig
from .lesson import Lesson

IMAGES, REPLAY, OWN = "images", "replay", "own"
# A small batch: few images are learned by the number of steps, not by the tokens of each.
SEQUENCE_LENGTH, BATCH_ROWS = 512, 1
PASSES = 60  # over the images, where neither steps nor minutes are given
COPIES = 8  # of an image, each with phrasings of its own
LEAST_STEPS = 60  # where they are not: fewer teach nothing, however few the images
CONVERSATION_TOKENS = 140  # of one of scenes, about
SHARD_SAMPLES = 5000
LARGE = 100_000_000  # weights
OWN_OF_REPLAY = 0.5  # of the tokens that are replayed
ASKED = 2  # times as many prompts as replies of its own are wanted
ASKED_FOR = {"drawing": 0.6, "edits": 0.4}
# Of a bundle that plans in words what it draws: the world as it has been taught it, in short.
PLANNED_MIX = ("people", "plan=1", "asked_weight=0", "seen_weight=0")
FIRST_SEED = 2**41  # of replay: evaluations have seeds up to 2^40
TIMED_STEPS = 2


def has_scenes(model: Model) -> bool:
    """Tell whether a model has learned the world of scenes, by its card and its canvas."""
    try:
        canvas_of(model)
    except ValueError:
        return False
    return bool(model.card.get("data_seeds"))


def is_large(model: Model) -> bool:
    """Tell whether adapters teach a model: one that knows the words of captions, as large ones do.

    The rows of words stay as they are beside adapters. The shipped bundle, whose words are those
    of scenes, then learns the images, but hardly which words mean which.
    """
    return sum(one.numel() for one in model.transformer.parameters()) >= LARGE


def length_of(model: Model) -> int:
    """Return the most tokens of a document, and of a packed sequence."""
    return min(SEQUENCE_LENGTH, model.context)


def steps_needed(model: Model, images: Sequence[Captioned], replay: float) -> int:
    """Return the steps in which each image is read PASSES times."""
    layout, encode = model.sequencer.layout, model.text_tokenizer.encode
    tokens = sum(layout.length(model.grid) + len(encode(one.captions[0])) + 16 for one in images)
    of_step = BATCH_ROWS * length_of(model) * (1 - replay)
    return max(LEAST_STEPS, math.ceil(PASSES * tokens / of_step))


def run_of(lesson: Lesson, model: Model, num_steps: int) -> LmRun:
    """Return the recipe of a lesson whose replay is known."""
    assert lesson.replay is not None, "the lesson was settled"
    sources = {
        IMAGES: SourceConfig(str(lesson.output / IMAGES), 1 - lesson.replay, format="request")
    }
    own = _own_share(lesson, model, num_steps)
    if lesson.replay:
        sources[REPLAY] = SourceConfig(str(lesson.output / REPLAY), lesson.replay - own)
    if own:
        sources[OWN] = SourceConfig(str(lesson.output / OWN), own)
    return LmRun(
        output=lesson.output,
        sources=sources,
        tokenizer=lesson.bundle,
        weights=lesson.bundle,
        schedule=ScheduleConfig(num_steps, num_steps // 10, num_steps // 5),
        lora=None if lesson.all_weights else LoraConfig(),
        seed=lesson.seed,
        loader=_loader(lesson, model),
        optimizer=_all_weights() if lesson.all_weights else _adapters(),
        loop=LoopConfig(save_every_steps=max(10, num_steps // 4), keep_checkpoints=1),
        sampling=model.sampling,
    )


def _loader(lesson: Lesson, model: Model) -> LoaderConfig:
    """Prompts are dropped for guidance alone: it draws from none where there is no plan either."""
    dropout = LoaderConfig.caption_dropout if model.sampling.guided else 0.0
    return LoaderConfig(
        length_of(model), BATCH_ROWS, window_rows=16, seed=lesson.seed, caption_dropout=dropout
    )


def _adapters() -> OptimizerConfig:
    """Adapters learn fast; the rows of codes, which the bundle knows, hardly move."""
    return OptimizerConfig(lr=4e-3, lr_scale={"model.embed_tokens": 0.1})


def _all_weights() -> OptimizerConfig:
    """At 3e-4 the shipped bundle learns twenty icons no better, and forgets more of its drawing."""
    return OptimizerConfig(lr=1.5e-4, muon_lr=1.5e-4)


def write_images(folder: Path, images: Sequence[Captioned]) -> None:
    """Write the shard of the taught images, where it is not there yet."""
    if (folder / shard_name(0)).exists():
        return
    with ShardWriter(folder, max_samples=COPIES * len(images)) as writer:
        for number, one in enumerate(image for image in images for _ in range(COPIES)):
            words = json.dumps({"caption": list(one.captions), "turns": True}, ensure_ascii=False)
            content = io.BytesIO()
            PILImage.fromarray(one.pixels).save(content, "PNG")
            files = {"json": words.encode(), "png": content.getvalue()}
            writer.write_files(f"{number:09d}", files)


def usual_mix(model: Model) -> tuple[str, ...]:
    """Return what a bundle replays where nobody says it."""
    return PLANNED_MIX if model.sampling.max_plan_tokens else ()


def write_own(lesson: Lesson, model: Model, num_steps: int) -> None:
    """Write the bundle's own right replies that a run of so many steps replays, or as many as there
    are among twice as many prompts.
    """
    select(
        SelectionRun(
            output=lesson.output / OWN,
            weights=lesson.bundle,
            prompts=PromptsConfig(ASKED_FOR, FIRST_SEED + lesson.seed),
            reward=RewardConfig(ScenesReward(wrong=0.0, share=0.0)),
            replies=_num_own(lesson, model, num_steps),
            most_asked=ASKED * _num_own(lesson, model, num_steps),
        )
    )


def _num_own(lesson: Lesson, model: Model, num_steps: int) -> int:
    """Return how many replies of its own are wanted."""
    assert lesson.replay is not None, "the lesson was settled"
    tokens = OWN_OF_REPLAY * lesson.replay * num_steps * BATCH_ROWS * length_of(model)
    return math.ceil(tokens / CONVERSATION_TOKENS)


def _own_share(lesson: Lesson, model: Model, num_steps: int) -> float:
    """Return the share of the tokens that are replies of its own, less where few were right."""
    folder = lesson.output / OWN
    if not lesson.replay or not folder.exists():
        return 0.0
    there = sum(len(Shard(path)) for path in folder.glob("*.tar"))
    return OWN_OF_REPLAY * lesson.replay * min(1.0, there / _num_own(lesson, model, num_steps))


def replay_of(lesson: Lesson, model: Model, num_steps: int) -> SceneShards:
    """Return the conversations that a run of so many steps replays."""
    assert lesson.replay, "nothing is replayed"
    tokens = lesson.replay * num_steps * BATCH_ROWS * length_of(model)
    samples = math.ceil(tokens / CONVERSATION_TOKENS)
    mix = mix_of("conversations", lesson.mix, lesson.things is not None)
    seed, canvas = FIRST_SEED + lesson.seed, canvas_of(model)
    return SceneShards("conversations", samples, seed, canvas, SHARD_SAMPLES, mix, lesson.things)


def write_replay(folder: Path, replay: SceneShards) -> None:
    """Write the shards of conversations that are not there yet."""
    claim(folder, SCENES, replay.note())
    for _ in write_shards(folder, replay, unfinished(folder, replay), workers=1):
        pass


def step_seconds(model: Model, config: LmRun) -> float:
    """Return about how long a step takes here: its losses and gradients, on the images alone.

    The model's weights stay as they are.
    """
    only = {IMAGES: replace(config.sources[IMAGES], weight=1.0)}
    loader = Loader(only, model.sequencer, model.codec, config.loader)
    bf16 = config.precision == "bf16" or (config.precision == "auto" and has_bf16())
    learner = LanguageLearner(
        model.transformer, config.loss, [IMAGES], autocast=bf16, attention=config.engine.attention
    )
    taken = []
    for batch, _ in islice(loader, TIMED_STEPS):
        began = time.perf_counter()
        learner(batch, learner.norms(batch))[TOTAL].backward()
        taken.append(time.perf_counter() - began)
        model.transformer.zero_grad(set_to_none=True)
    return min(taken)  # the first one makes kernels ready


def threads() -> str:
    """Say on what it runs."""
    count = torch.get_num_threads()
    return "a GPU" if torch.cuda.is_available() else f"{count} thread{'s' if count > 1 else ''}"

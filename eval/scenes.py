"""A model's scores in the world of scenes: drawing, questions, captions and edits.

In: a model, a seed that training never used, and how many samples each kind of request gets. Out:
scores, recipe, every prediction, and cells for a contact sheet.

1. `trials` makes the requests of a part: uniform over looks, counts, sizes and backgrounds; a
   fifth in phrasings that training held out, and with a fifth of pairs of (shape, colour) held out.
2. `replies` puts them to the model as the chat would, each with its own noise, and takes what
   comes: one sample, the model alone choosing between words and a image.
3. Each trial judges its reply (`verdicts.py`): images by `read_scene` alone, words by parsing.
4. `evaluate` adds what the numbers are measured against: the same questions without the image,
   the best constant answer, perfect images through the tokenizer, the tokenizer's ceiling on
   whole scenes and the reader's own error, on damaged renders too.

A part's `overall` is the unweighted mean of its kinds. A drawing or an edit costs one image:
about 64 steps of the model, `batch` requests at a time.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from unimodal.bundle import Model
from unimodal.data.scenes.edits import KINDS as EDITS
from unimodal.data.scenes.edits import edit
from unimodal.data.scenes.phrasings import DESCRIBE
from unimodal.data.scenes.questions import KINDS as QUESTIONS
from unimodal.data.scenes.questions import ask
from unimodal.data.scenes.requests import TASKS, granted, request
from unimodal.data.scenes.wording import dressed, pick_phrasing
from unimodal.data.scenes.world import (
    CANVASES,
    SMALL,
    Scene,
    World,
    generator,
    has_held_out_pair,
    render,
    scene,
)
from unimodal.document import Document, Image, Part, Text
from unimodal.generation import Event, ReplyDone, Sampling, generate
from unimodal.tokenizer.pixels import to_images, to_tensor

from .intervals import gain, ratio
from .report import Cell, bar
from .score import Prediction, apart, by_kind, digest, recipe
from .tokenizer import (
    as_json,
    batches,
    reader_errors,
    reconstruct,
    refuse_training_seed,
    tokenizer_ceiling,
    world_of,
)
from .verdicts import (
    Answer,
    Verdict,
    expected_of,
    judge_caption,
    judge_drawing,
    judge_edit,
    judge_question,
    names_held_out_pair,
)

PARTS = ("drawing", "questions", "captions", "edits")
HELD_OUT_RATE = 0.2  # of the requests are in held-out phrasings: a fifth of the phrasings are
NUM_SHOWN = {"drawing": 4, "questions": 1, "captions": 5, "edits": 2}  # of each kind, on the sheet


@dataclass(frozen=True, eq=False)
class Trial:
    """One request with what tells whether its reply is right."""

    part: str  # one of PARTS
    kind: str
    prompt: str
    shown: Scene | None  # the image that comes before the prompt
    ideal: Scene | None  # a scene that a perfect image would show; None: words are wanted
    expected: Any
    judge: Callable[[Answer], Verdict]
    held_out_words: bool
    held_out_pair: bool


def evaluate(
    model: Model,
    samples: int,
    seed: int,
    sampling: Sampling | None = None,
    batch: int = 32,
    parts: Sequence[str] = PARTS,
) -> tuple[dict[str, Any], list[Cell]]:
    """The report (scores, recipe, predictions) and the cells of the contact sheet.

    samples: of each task or kind; sampling: None takes the model's own, its seed is ignored. Raises
    ValueError when the model's images are not square or not of 64 to 512 pixels, and when it was
    trained on this seed.
    """
    canvas = _canvas(model)
    refuse_training_seed(model.card, seed)
    sampling = sampling or model.sampling
    report: dict[str, Any] = {"scores": {}, "predictions": []}
    asked: list[Trial] = []
    cells: list[Cell] = []
    ceiling = tokenizer_ceiling(model.tokenizer, samples * len(TASKS), seed, canvas, batch)
    for part in parts:
        found = trials(part, samples, seed, world_of(canvas))
        said = replies(model, found, sampling, seed, batch, part)
        judged = [predict(*pair) for pair in zip(found, said, strict=True)]
        report["predictions"] += judged
        report["scores"][part] = _scores(judged)
        cells += _cells(found, said, judged, canvas)
        asked += found
        if part == "questions":
            blind = _blind(model, found, sampling, seed, batch)
            report["predictions"] += blind
            report["scores"][part] |= _baselines(judged, blind)
        if part in ("drawing", "edits"):
            report["scores"][part] |= _ceilings(model, found, judged, ceiling, canvas, batch)
    report["scores"]["tokenizer"] = ceiling["scores"]
    report["scores"]["reader_error"] = reader_errors(samples, seed, canvas)
    report["recipe"] = _recipe(model, samples, seed, sampling, batch, asked)
    return report, cells


def trials(part: str, samples: int, seed: int, world: World = SMALL) -> list[Trial]:
    """`samples` trials of each kind of a part; a pure function of its arguments."""
    makers: dict[str, tuple[Sequence[str], Callable[..., Trial | None]]] = {
        "drawing": (TASKS, _drawing),
        "questions": (QUESTIONS, _question),
        "captions": (("caption",), _caption),
        "edits": (EDITS, _edit),
    }
    kinds, make = makers[part]
    first = PARTS.index(part) << 40  # scenes of parts and kinds never meet
    return [
        trial
        for number, kind in enumerate(kinds)
        for trial in _some(partial(make, kind, world), samples, seed, first + (number << 32))
    ]


def _some(
    make: Callable[[int, int], Trial | None],
    samples: int,
    seed: int,
    index: int,
) -> Iterator[Trial]:
    """`samples` trials from scenes of `index` on, passing over those that offer no such trial."""
    while samples:
        trial = make(seed, index)
        index += 1
        if trial is not None:
            samples -= 1
            yield trial


def _drawing(kind: str, world: World, seed: int, index: int) -> Trial | None:
    rng = generator(seed, index, part=1)
    held_out = bool(rng.random() < HELD_OUT_RATE)
    wanted = request(kind, rng, held_out, pairs=None)
    if kind == "counting" and wanted.claims[0].count < 2:
        return None  # GenEval counts two and more
    return Trial(
        "drawing", kind, wanted.text, None, granted(wanted, rng, world), expected_of(wanted),
        partial(judge_drawing, wanted), held_out, names_held_out_pair(wanted),
    )  # fmt: skip


def _question(kind: str, world: World, seed: int, index: int) -> Trial | None:
    rng, shown = generator(seed, index, part=1), scene(seed, index, world)
    held_out = bool(rng.random() < HELD_OUT_RATE)
    asked = ask(shown, kind, rng, held_out)
    if asked is None:
        return None
    return Trial(
        "questions", kind, asked.text, shown, None, asked.answer,
        partial(judge_question, asked), held_out, has_held_out_pair(shown.objects),
    )  # fmt: skip


def _caption(kind: str, world: World, seed: int, index: int) -> Trial | None:
    rng, shown = generator(seed, index, part=1), scene(seed, index, world)
    held_out = bool(rng.random() < HELD_OUT_RATE)
    prompt = dressed(pick_phrasing(rng, DESCRIBE, held_out)[1], rng)
    return Trial(
        "captions", kind, prompt, shown, None, as_json(shown),
        partial(judge_caption, shown), held_out, has_held_out_pair(shown.objects),
    )  # fmt: skip


def _edit(kind: str, world: World, seed: int, index: int) -> Trial | None:
    rng, shown = generator(seed, index, part=1), scene(seed, index, world)
    held_out = bool(rng.random() < HELD_OUT_RATE)
    wanted = edit(shown, kind, rng, held_out, world=world)
    if wanted is None:
        return None
    pair = has_held_out_pair(wanted.before.objects) or has_held_out_pair(wanted.after.objects)
    return Trial(
        "edits", kind, wanted.instruction, shown, wanted.after, as_json(wanted.after),
        partial(judge_edit, wanted), held_out, pair,
    )  # fmt: skip


def replies(
    model: Model, trials: Sequence[Trial], sampling: Sampling, seed: int, batch: int, words: str
) -> list[Answer]:
    """What the model replies to each trial: its words, and its images decoded.

    The noise of trial k is that of seed * 2^20 + k, whatever stands beside it in a batch.
    """
    documents = _documents(model, trials, batch)
    samplings = [replace(sampling, seed=(seed * 2**20 + k) % 2**64) for k in range(len(trials))]
    with bar(len(trials), words) as advance:

        def on_event(event: Event) -> None:
            if isinstance(event, ReplyDone):
                advance()

        answers = generate(model, documents, samplings, on_event=on_event, batch=batch)
    return [_reply(model, parts) for parts in answers]


def predict(trial: Trial, reply: Answer) -> Prediction:
    """The verdict on a reply, as it is kept."""
    verdict = trial.judge(reply)
    return Prediction(
        part=trial.part,
        kind=trial.kind.replace(" ", "_"),
        prompt=trial.prompt,
        expected=trial.expected,
        answer=verdict.answer,
        right=not verdict.reason,
        reason=verdict.reason,
        held_out_words=trial.held_out_words,
        held_out_pair=trial.held_out_pair,
        codes=reply.codes,
    )


def _documents(model: Model, trials: Sequence[Trial], batch: int) -> list[Document]:
    """What the model is given: the image, encoded, and then the prompt."""
    canvas, device = _canvas(model), next(model.tokenizer.parameters()).device
    images: dict[int, Image] = {}
    shown = [(k, trial.shown) for k, trial in enumerate(trials) if trial.shown is not None]
    for some in batches(shown, batch):
        pixels = [render(before, canvas) for _, before in some]
        codes_Bn1, grid = model.tokenizer.encode(to_tensor(pixels).to(device))
        for (k, _), codes_n1 in zip(some, codes_Bn1.cpu().numpy(), strict=True):
            images[k] = Image(
                codes=codes_n1[:, 0],
                grid=grid,
                tokenizer_hash=model.sequencer.tokenizer_hash,
                role="user",
            )
    return [
        Document((*([images[k]] if k in images else []), Text(trial.prompt, role="user")))
        for k, trial in enumerate(trials)
    ]


def _reply(model: Model, parts: Sequence[Part]) -> Answer:
    text = " ".join(part.text.strip() for part in parts if isinstance(part, Text)).strip()
    drawn = [part for part in parts if isinstance(part, Image)]
    device = next(model.tokenizer.parameters()).device
    images, codes = [], []
    for part in drawn:
        assert part.codes is not None and part.grid is not None, "a drawn image has codes"
        codes_1n1 = torch.from_numpy(part.codes.astype(np.int64)).reshape(1, -1, 1).to(device)
        images.append(np.asarray(to_images(model.tokenizer.decode(codes_1n1, part.grid))[0]))
        codes.append(tuple(part.codes.tolist()))
    return Answer(text, tuple(images), tuple(codes))


def _scores(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Overall and kinds of a part; phrasings and pairs held out of training beside the others."""
    return {
        **by_kind(predictions),
        "by_words": apart(predictions, lambda p: p.held_out_words),
        "by_pair": apart(predictions, lambda p: p.held_out_pair),
    }


def _blind(
    model: Model, trials: Sequence[Trial], sampling: Sampling, seed: int, batch: int
) -> list[Prediction]:
    """The predictions of the same questions asked without their images."""
    hidden = [replace(trial, part="blind", shown=None) for trial in trials]
    said = replies(model, hidden, sampling, seed, batch, "questions without images")
    return [predict(*pair) for pair in zip(hidden, said, strict=True)]


def _baselines(seen: Sequence[Prediction], blind: Sequence[Prediction]) -> dict[str, Any]:
    """The scores of no image and of the best constant answer, and the gain over no image."""
    scores = by_kind(blind)
    return {
        "blind": scores,
        "majority": by_kind(majority(seen)),
        "gain_over_blind": gain(by_kind(seen)["overall"], scores["overall"]),
    }


def majority(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Predictions of the constant answer that, in hindsight, is right most often in each kind."""
    answers: dict[str, Counter[str]] = {}
    for p in predictions:
        answers.setdefault(p.kind, Counter())[p.expected] += 1
    best = {kind: counts.most_common(1)[0][0] for kind, counts in answers.items()}
    return [
        replace(p, part="majority", answer=best[p.kind], right=p.expected == best[p.kind])
        for p in predictions
    ]


def _ceilings(
    model: Model,
    trials: Sequence[Trial],
    judged: Sequence[Prediction],
    ceiling: dict[str, Any],
    canvas: int,
    batch: int,
) -> dict[str, Any]:
    """The scores of perfect images after the tokenizer, and the score over its ceiling."""
    ideals = [render(trial.ideal, canvas) for trial in trials if trial.ideal is not None]
    images, _ = reconstruct(model.tokenizer, ideals, batch)
    best = [
        predict(trial, Answer("", (image,))) for trial, image in zip(trials, images, strict=True)
    ]
    return {
        "perfect_images": by_kind(best),
        "over_ceiling": ratio(by_kind(judged)["overall"], ceiling["scores"]["right"]),
    }


def _cells(
    trials: Sequence[Trial], said: Sequence[Answer], judged: Sequence[Prediction], canvas: int
) -> list[Cell]:
    """Cells of the first trials of each kind, as they came."""
    shown: Counter[str] = Counter()
    cells = []
    for trial, reply, prediction in zip(trials, said, judged, strict=True):
        images = [render(trial.shown, canvas)] if trial.shown is not None else []
        if trial.ideal is not None:
            images += reply.images[:1]
        if not images or shown[trial.kind] == NUM_SHOWN[trial.part]:
            continue
        shown[trial.kind] += 1
        said_words = [reply.text] if trial.part == "captions" or prediction.right else []
        verdict = "; ".join(words for words in [*said_words, prediction.reason] if words)
        cells.append(Cell(tuple(images), trial.prompt, verdict, prediction.right))
    return cells


def _recipe(
    model: Model,
    samples: int,
    seed: int,
    sampling: Sampling,
    batch: int,
    asked: Sequence[Trial],
) -> dict[str, Any]:
    return recipe(
        evaluation="scenes",
        model=model.hash,
        tokenizer=model.sequencer.tokenizer_hash,
        prompts=digest([t.part, t.kind, t.prompt, t.expected] for t in asked),
        samples_per_kind=samples,
        seed=seed,
        **{name: value for name, value in asdict(sampling).items() if name != "seed"},
        batch_size=batch,
        resolution=_canvas(model),
        device=next(model.transformer.parameters()).device.type,
        precision=str(next(model.transformer.parameters()).dtype).removeprefix("torch."),
    )


def _canvas(model: Model) -> int:
    width, height = model.canvas
    if width != height or not CANVASES[0] <= width <= CANVASES[1]:
        raise ValueError(
            f"the model draws {width}x{height} pixels: scenes are square, "
            f"{CANVASES[0]} to {CANVASES[1]} pixels a side"
        )
    return width

"""What a comparison of heads takes, before it begins: FLOPs, positions, images and CPU time.

In: the laboratory and some of its conversations. Out: a `HeadCost` for each head, of its first rows
and of an untrained model and tokenizer, for neither counts nor times depend on weights; and rows
that say what will be done and how long it takes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from time import process_time

import numpy as np
import torch

from unimodal.codec import ImageCodec
from unimodal.data.learned_text import TEXT_IDS
from unimodal.data.loader import Loader
from unimodal.data.scenes.world import render, scene
from unimodal.data.sources import SourceConfig
from unimodal.data.streams import texts
from unimodal.document import Document, Image, Text
from unimodal.eval.options import EVAL_SEED
from unimodal.eval.tokenizer import reader_errors, tokenizer_ceiling
from unimodal.generation import generate
from unimodal.model import Model
from unimodal.sequence import Batch
from unimodal.sequencer import Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.pixels import to_tensor
from unimodal.train.flops import layer_weights, step_flops
from unimodal.train.learner import TOTAL, LanguageLearner, TokenizerLearner
from unimodal.unified import UnifiedModel

from .laboratory import REFERENCE, Drawing, Head, Laboratory, Trial

TEXT_SAMPLES = 2_000  # documents whose texts teach a text tokenizer here
KINDS = {"drawing": 6, "edits": 6, "questions": 11}  # of requests in the exam
ASKED = 8  # requests that are timed together
ANSWER_TOKENS = 6
BESIDE = 2  # samples of each kind, whose cost beside the model is timed
PLAN_HEAD = ("what", "head", "times", "CPU min each", "CPU min")


@dataclass(frozen=True)
class HeadCost:
    """The cost of a head; counts are means over steps."""

    parameters: int
    layer_parameters: int
    """Those of the matrices of the transformer's layers, equal for all heads."""
    step_flops: float
    step_positions: int
    """Of the rows, padding included."""
    step_tokens: float
    """Those of documents, copies included."""
    step_images: float
    step_targets: float
    """Places of images that are predicted."""
    passes: dict[str, int]
    """Over an image, by the name of a drawing."""
    step_s: float
    """Seconds of forward and backward."""
    tokenizer_step_s: float
    draw_s: dict[str, float]
    """Seconds an image, by the name of a drawing."""
    answer_s: float
    beside_s: float
    """Of what an exam measures beside the model for a sample of each kind: the tokenizer's ceiling,
    perfect images, the reader's own error."""

    def steps(self, flops: float) -> int:
        """Return how many steps come nearest to so many FLOPs, at least one."""
        return max(1, round(flops / self.step_flops))


@dataclass(frozen=True)
class Times:
    """How often something is timed."""

    counted_steps: int = 32
    timed_steps: int = 2


def head_cost(lab: Laboratory, head: Head, text: TextTokenizer, times: Times) -> HeadCost:
    """Count and time a head on the laboratory's conversations."""
    run = lab.recipe(Trial(head, 1e-3), 1)
    image_run = lab.tokenizer_recipe(head.tokenizer)
    tokenizer = ImageTokenizer(image_run.model)
    tokenizer_step_s = _seconds_of(_tokenizer_step(tokenizer, lab, head), times.timed_steps)
    codec = ImageCodec(tokenizer)
    assert run.model is not None, "the recipe has a section `model`"
    vocabulary = run.model.vocabulary(text.num_ids, codec.num_codes)
    shape = run.model.of(vocabulary, tokenizer.levels, tokenizer.latent_width)
    model = UnifiedModel(shape)
    learner = LanguageLearner(
        model, run.loss, ("scenes",), autocast=lab.budget.precision == "bf16"
    ).train()
    sequencer = Sequencer(vocabulary, text, codec.hash, model.head.inputs, shape.max_side)
    talks = {name: replace(one, shards=str(lab.conversations)) for name, one in run.sources.items()}
    loader = Loader(talks, sequencer, codec, run.loader)
    with closing(iter(loader)) as rows:
        batches = [batch for batch, _ in islice(rows, times.counted_steps)]
    counts = _means([_counts(learner, batch) for batch in batches])
    step_s = _seconds_of(lambda: _step(learner, batches[0]), times.timed_steps)
    whole = Model(
        model.eval(), text, tokenizer, run.sampling, shape.transformer.max_positions,
        codec.geometry.default_grid, {}, "",
    )  # fmt: skip
    grid = whole.grid
    places = grid.height * grid.width
    return HeadCost(
        parameters=sum(one.numel() for one in model.parameters()),
        layer_parameters=shape.transformer.num_layers * layer_weights(shape.transformer),
        step_flops=counts["flops"],
        step_positions=batches[0].ids.numel(),
        step_tokens=counts["tokens"],
        step_images=counts["images"],
        step_targets=counts["targets_image"],
        passes={one.name: head.passes(one, places, len(grid.scales)) for one in head.drawings},
        step_s=step_s,
        tokenizer_step_s=0.0 if head.tokenizer == "pixels" else tokenizer_step_s,
        draw_s={one.name: draw_s(whole, one) for one in head.drawings},
        answer_s=_answer_s(whole),
        beside_s=_beside_s(tokenizer),
    )


def text_tokenizer(lab: Laboratory) -> TextTokenizer:
    """Return a text tokenizer of the laboratory's conversations, as a run trains its own."""
    recipe = lab.recipe(Trial(REFERENCE, 1e-3), 1)
    talks = {"scenes": SourceConfig(str(lab.conversations))}
    return TextTokenizer.train(texts(talks, TEXT_SAMPLES), recipe.text_ids or TEXT_IDS)


def draw_s(model: Model, drawing: Drawing, requests: int = ASKED) -> float:
    """Return the CPU seconds an image takes, where so many are drawn together."""
    documents = [Document((Text("draw a red circle", role="user"),))] * requests
    sampling = drawing.of(model.sampling)
    asked = [replace(sampling, seed=seed) for seed in range(requests)]
    before = process_time()
    generate(model, documents, asked, "image", batch=requests)
    return (process_time() - before) / requests


def _answer_s(model: Model) -> float:
    """Return the CPU seconds of an answer to a question about an image."""
    shown = Image(pixels=render(scene(3, 0), 64), role="user")
    words = Text("which colour has the circle?", role="user")
    before = process_time()
    asked = [model.codec.encode_document(Document((shown, words)))] * ASKED
    sampling = replace(model.sampling, max_text_tokens=ANSWER_TOKENS)
    generate(model, asked, sampling, "text", batch=ASKED)
    return (process_time() - before) / ASKED


def _beside_s(tokenizer: ImageTokenizer) -> float:
    before = process_time()
    tokenizer_ceiling(tokenizer, BESIDE * KINDS["drawing"], EVAL_SEED)
    ceiling_s = process_time() - before
    reader_errors(BESIDE, EVAL_SEED, 64)
    # Perfect drawings and edits go the way of the ceiling's scenes, and are as many each.
    return (process_time() - before + 2 * ceiling_s) / BESIDE


def _counts(learner: LanguageLearner, batch: Batch) -> dict[str, float]:
    """Return what a step over a batch is: FLOPs, tokens, images, targets."""
    model = learner.model
    vocabulary = model.architecture.vocabulary
    counts = learner.norms(batch)
    for number, name in enumerate(("text", "image"), start=1):
        counts[f"targets_{name}"] = int((batch.modality == number).sum())
    head_ids = {"text": vocabulary.num_words, "image": model.head.num_targets}
    return counts | {
        "flops": step_flops(model.config, counts, head_ids),
        "images": int((batch.ids == vocabulary.special("image")).sum()),
    }


def _means(counts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in counts])) for name in counts[0]}


def _step(learner: LanguageLearner, batch: Batch) -> None:
    learner(batch)[TOTAL].backward()
    learner.zero_grad(set_to_none=True)


def _tokenizer_step(tokenizer: ImageTokenizer, lab: Laboratory, head: Head) -> Callable[[], None]:
    """Return a function that does the work of a step of a tokenizer's training."""
    run = lab.tokenizer_recipe(head.tokenizer)
    if run.model.pixels is not None:
        return lambda: None
    learner = TokenizerLearner(tokenizer, run.loss, autocast=run.precision == "bf16").train()
    images_B3HW = to_tensor([render(scene(3, n), 64) for n in range(run.batch_images)])

    def step() -> None:
        learner(images_B3HW, learner.norms(images_B3HW))[TOTAL].backward()
        learner.zero_grad(set_to_none=True)

    return step


def _seconds_of(work: Callable[[], None], times: int) -> float:
    """Return the CPU seconds of a call behind the first one, the median."""
    work()
    found = []
    for _ in range(times):
        before = process_time()
        work()
        found.append(process_time() - before)
    return float(np.median(found))


def exam_s(cost: HeadCost, samples: int, drawing: Drawing, drawing_alone: bool = False) -> float:
    """Return the CPU seconds of an exam; questions are asked twice, with and without the image."""
    drawn = KINDS["drawing"] + (0 if drawing_alone else KINDS["edits"])
    answered = 0 if drawing_alone else 2 * KINDS["questions"]
    asked_s = drawn * cost.draw_s[drawing.name] + answered * cost.answer_s
    return samples * (asked_s + cost.beside_s)


def plan(
    lab: Laboratory, costs: Mapping[str, HeadCost], heads: Sequence[Head], flops: float,
    rates: int, seeds: int,
) -> list[tuple[str, str, int, float]]:  # fmt: skip
    """Return rows (what, head, how often, CPU seconds each) of all that will be done."""
    return [*_tokenizers(lab, costs, heads), *_models(lab, costs, heads, flops, rates, seeds)]


def _tokenizers(
    lab: Laboratory, costs: Mapping[str, HeadCost], heads: Sequence[Head]
) -> Iterator[tuple[str, str, int, float]]:
    for kind in dict.fromkeys(head.tokenizer for head in heads):
        users = [head.name for head in heads if head.tokenizer == kind]
        each = lab.budget.tokenizer_steps * costs[users[0]].tokenizer_step_s
        yield f"image tokenizer: {kind}", ", ".join(users), 1, each


def _models(
    lab: Laboratory, costs: Mapping[str, HeadCost], heads: Sequence[Head], flops: float,
    rates: int, seeds: int,
) -> Iterator[tuple[str, str, int, float]]:  # fmt: skip
    budget = lab.budget
    for head in heads:
        cost, name = costs[head.name], head.name
        train_s = cost.steps(flops) * cost.step_s
        sweep_s = exam_s(cost, budget.sweep_samples, head.main)
        yield f"learning rates: {cost.steps(flops):,} steps", name, rates, train_s
        yield f"their exams: {budget.sweep_samples} samples", name, rates, sweep_s
        yield "further seeds", name, seeds - 1, train_s
        main_s = exam_s(cost, budget.samples, head.main)
        yield f"exams: {budget.samples} samples", name, seeds, main_s
        for drawing in head.drawings:
            if drawing != head.main:
                alone_s = exam_s(cost, budget.samples, drawing, drawing_alone=True)
                yield f"drawing in {drawing.name}", name, 1, alone_s
        yield "exams of checkpoints", name, budget.checkpoints - 1, sweep_s


def plan_cells(rows: Sequence[tuple[str, str, int, float]]) -> list[list[str]]:
    """Return the cells of the plan, the sum last."""
    cells = [
        [what, head, str(times), f"{each / 60:.1f}", f"{times * each / 60:.1f}"]
        for what, head, times, each in rows
    ]
    total = sum(times * each for _, _, times, each in rows) / 60
    return [*cells, ["all", "", "", "", f"{total:.1f} ({total / 60:.1f} hours)"]]


def one_thread() -> None:
    """Compute in one thread from now on."""
    torch.set_num_threads(1)

"""Drawing against `transformers` with the same weights: `python tests/benchmarks/generation.py`.

    python tests/benchmarks/generation.py [--only PART]... [--threads N] [--repeats N] [--quick]

The parts are `one` (one request, with guidance and without), `many` (a batch), `head` (codes scored
alone, out of the ids of a large vocabulary), `turns` (the last turn of a conversation) and `drafts`
(several codes in a pass).
transformers draws by its `generate`, from the export of the default model, greedily: its processor
of guidance, and one that lets no ids but codes and ends of rows through. Both must draw the same
ids. Lines of weights in 8 bits have no such check: they say how far from fp32 distributions are.
Contenders run in one process in turns; seconds are those of the CPU where one thread computes,
which neighbours change less, and of the clock where more do. The exit status is 1 where something
is not exact; a bar that is missed is said in the table.
"""

import itertools
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, LogitsProcessor, PreTrainedModel

sys.path.extend(map(str, Path(__file__).resolve().parents[2:0:-1]))  # launched by its path

from benchmarks.measured import Line, interleaved, ratios, spread, table
from other_architectures import without_addresses

import unimodal
from unimodal.attention import DenseAttention
from unimodal.bundle import save_bundle
from unimodal.document import Document, Image, Text
from unimodal.events import ImageProgress, ReplyDone
from unimodal.generation import Generation, generate
from unimodal.hub.command import run_export
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.sequence import Batch, Row, span_mask

GUIDANCE = 3.0
BARS = {"guided": 3.0, "plain": 1.7, "many": 2.0, "head": 2.5, "drafts": 2.0}
DRAFTS = 8  # of the lines against transformers
SAME = 0.97  # share of images at least: sums of another order may tip a code, one of ten thousands
WORDS = ("two red circles", "a small blue star", "three green squares", "a large yellow heart")


def timed(repeats: int, *contenders: Callable[[], object]) -> list[list[float]]:
    """Seconds of each contender for each repeat."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    return interleaved(repeats, *contenders, clock=clock)


@dataclass(frozen=True)
class DrawingScale:
    """How much is measured."""

    repeats: int = 5
    batch: int = 16
    text_ids: int = 152_000
    code_ids: int = 64_000
    width: int = 512
    turns: int = 6
    drafts: tuple[int, ...] = (8,)
    images: int = 24


QUICK = DrawingScale(1, 2, 1000, 500, 64, 2, (8,), 2)


def request(words: str) -> Document:
    """A request to draw."""
    return Document((Text(f"draw {words}", role="user"),))


def greedy(guidance: float | None, seed: int = 0) -> Sampling:
    """Settings that leave nothing to chance."""
    return Sampling(image_temperature=0.0, guidance=guidance, seed=seed, max_images=1)


class CodesAlone(LogitsProcessor):
    """Lets through, at each step, the ids that may stand there."""

    def __init__(self, model: Model, start: int) -> None:
        """start: how many ids come before the first that is sampled."""
        layout, size = model.sequencer.layout, model.vocabulary.size
        _, is_code = layout.content(np.zeros(model.grid.size, np.int64), model.grid)
        codes_V = torch.from_numpy(model.vocabulary.is_code(np.arange(size)))
        ends_V = torch.zeros(size, dtype=torch.bool)
        ends_V[model.vocabulary.special("row_end")] = True
        self.forbidden = [~(codes_V if code else ends_V) for code in is_code]
        self.start = start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores with -inf where an id may not stand."""
        return scores.masked_fill(self.forbidden[input_ids.shape[1] - self.start], -torch.inf)


def theirs(
    model: Model, peer: PreTrainedModel, documents: list[Document], guidance: float | None
) -> list[list[int]]:
    """The ids of the content of the images that transformers draws."""
    opening, pad = model.sequencer.layout.opening(model.grid), model.vocabulary.special("pad")

    def padded(drop: str | None) -> tuple[Tensor, Tensor]:
        prompts = [model.sequencer.prompt(one, drop).ids.tolist() + opening for one in documents]
        longest = max(map(len, prompts))
        ids = [[pad] * (longest - len(one)) + one for one in prompts]
        seen = [[0] * (longest - len(one)) + [1] * len(one) for one in prompts]
        return torch.tensor(ids), torch.tensor(seen)

    ids_BT, seen_BT = padded(None)
    extra = {}
    if guidance is not None:
        names = ("negative_prompt_ids", "negative_prompt_attention_mask")
        extra = dict(zip(names, padded("text"), strict=True)) | {"guidance_scale": guidance}
    content = model.sequencer.layout.content_length(model.grid)
    out_BT = peer.generate(
        ids_BT, attention_mask=seen_BT, max_new_tokens=content, do_sample=False,
        logits_processor=[CodesAlone(model, ids_BT.shape[1])], pad_token_id=pad,
        eos_token_id=None, **extra,
    )  # fmt: skip
    return out_BT[:, ids_BT.shape[1] :].tolist()


@dataclass(frozen=True)
class Way:
    """A way of drawing: a model, and how many drafts it checks in a pass."""

    model: Model
    drafts: int | None = None


def ours(way: Way, documents: list[Document], guidance: float | None) -> list[list[int]]:
    """The ids of the content of the images that we draw."""
    found, model = [], way.model
    sampling = replace(greedy(guidance), image_drafts=way.drafts)
    for parts in generate(model, documents, sampling, "image"):
        (image,) = parts
        assert isinstance(image, Image) and image.codes is not None, "an image was asked for"
        found.append(model.sequencer.layout.content(image.codes[:, 0], model.grid)[0].tolist())
    return found


@torch.inference_mode()
def apart(exact: Model, other: Model, document: Document, drawn: list[int]) -> str:
    """How far the distributions of another model's codes are from the exact ones, in words."""
    opening = exact.sequencer.layout.opening(exact.grid)
    ids = [*exact.sequencer.prompt(document).ids.tolist(), *opening, *drawn]
    causal = type(exact.sequencer.prompt(document)).causal(np.array(ids))
    batch = Batch.stack([Row.pack([causal], len(ids), 0)])
    is_code = exact.vocabulary.is_code(np.array(ids))
    at = torch.from_numpy(np.flatnonzero(is_code) - 1)
    found = []
    for model in (exact, other):
        transformer = model.transformer
        attend = DenseAttention(span_mask(batch.doc, batch.block, batch.private))
        hidden_TD = transformer.hidden_states(batch, batch.positions, attend)[0]
        args = [(None, None)] * len(at)
        logits_MC = transformer.head.logits(hidden_TD[at], transformer.output_table(), 1, args)
        found.append(logits_MC.double().log_softmax(-1))
    mine, close = found
    divergence = (mine.exp() * (mine - close)).sum(-1).mean()
    same = (mine.argmax(-1) == close.argmax(-1)).double().mean()
    return f"likeliest code the same at {same:.1%} of places, KL {divergence:.1e} nats a code"


def drawing(
    name: str, ways: dict[str, Way], peer: PreTrainedModel, documents: list[Document],
    guidance: float | None, scale: DrawingScale,
) -> Iterator[Line]:  # fmt: skip
    """A line for each way of drawing, the first of which is fp32, one code a pass."""
    exact = ways["fp32"].model
    works: list[Callable[[], list[list[int]]]] = [
        partial(theirs, exact, peer, documents, guidance),
        *(partial(ours, way, documents, guidance) for way in ways.values()),
    ]
    drawn = [work() for work in works]
    their_s, *our_s = timed(scale.repeats, *works)
    num_ids = sum(map(len, drawn[0]))
    peers = [num_ids / one for one in their_s]
    for (label, way), seconds, ids in zip(ways.items(), our_s, drawn[1:], strict=True):
        faster, bar = ratios(their_s, seconds), BARS[name]
        different = sum(a != b for a, b in zip(drawn[0], ids, strict=True))
        check, wrong = "same ids", (f"{different} of {len(ids)} images differ",) * bool(different)
        if way.model.weights != "fp32":
            check, wrong = apart(exact, way.model, documents[0], drawn[0][0]), ()
        yield Line(
            f"{len(documents)} image(s), {'guidance' if guidance else 'no guidance'}, {label}",
            spread([num_ids / one for one in seconds], " ids/s"),
            f"transformers fp32 {spread(peers, ' ids/s')}", spread(faster), f">= {bar}",
            median(faster) >= bar, check, wrong,
        )  # fmt: skip


def drafts(model: Model, scale: DrawingScale) -> Iterator[Line]:
    """Drafts with the model's own settings, of drawings and of edits of these: passes, time, and
    whether each seed draws what it draws one by one.
    """

    def drawn(documents: list[Document], most: int | None, num: int) -> tuple[float, list[Image]]:
        """The passes of an image, and so many images of each document."""
        generation, asked = Generation(model, 1), [one for one in documents for _ in range(num)]
        for seed, document in enumerate(asked):
            sampling = replace(model.sampling, seed=seed, image_drafts=most, max_images=1)
            generation.submit(document, sampling, "image")
        passes, images = 0, {}
        for event in generation.run():
            passes += isinstance(event, ImageProgress)
            if isinstance(event, ReplyDone):
                images[event.request] = event.parts[0]
        return passes / len(asked), [images[k] for k in range(len(asked))]

    drawings = [request(words) for words in WORDS]
    images = drawn(drawings, None, 1)[1]
    edits = [
        Document((*document.parts, image, Text("make it blue", role="user")))
        for document, image in zip(drawings, images, strict=True)
    ]
    for (what, documents), most in itertools.product(
        (("drawings", drawings), ("edits", edits)), scale.drafts
    ):
        num = scale.images
        (_, plain), (passes, found) = (drawn(documents, way, num) for way in (None, most))
        same = [np.array_equal(a.codes, b.codes) for a, b in zip(plain, found, strict=True)]
        one_s, many_s = timed(
            scale.repeats, partial(drawn, documents, None, 1), partial(drawn, documents, most, 1)
        )
        fewer = model.grid.size / passes
        yield Line(
            f"{what}, {most} drafts in a pass, the model's settings, fp32",
            f"{passes:.1f} passes an image",
            f"{model.grid.size} one by one; time {spread(ratios(one_s, many_s))}x less",
            f"{fewer:.2f}", f">= {BARS['drafts']}", fewer >= BARS["drafts"],
            f"{sum(same)} of {len(same)} images are those of their seeds one by one",
            (f"{same.count(False)} images differ",) if np.mean(same) < SAME else (),
        )  # fmt: skip


def head(scale: DrawingScale) -> Line:
    """The product with the codes' rows alone, against all rows and a mask; both pick the code."""
    generator = torch.Generator().manual_seed(0)
    num_ids = scale.text_ids + scale.code_ids
    table_VD = torch.randn(num_ids, scale.width, generator=generator)
    hidden_BD = torch.randn(2, scale.width, generator=generator)
    forbidden_V = torch.arange(num_ids) < scale.text_ids

    def sliced() -> Tensor:
        logits = F.linear(hidden_BD, table_VD[scale.text_ids :])
        return scale.text_ids + logits.argmax(-1)

    def whole() -> Tensor:
        logits = F.linear(hidden_BD, table_VD)
        return logits.masked_fill(forbidden_V, -torch.inf).argmax(-1)

    whole_s, sliced_s = timed(scale.repeats, whole, sliced)
    cheaper = ratios(whole_s, sliced_s)
    wrong = () if torch.equal(whole(), sliced()) else ("other ids",)
    return Line(
        f"head, two rows of width {scale.width}, {scale.code_ids:,} codes",
        spread(sliced_s, " ms", 1e3), f"all {num_ids:,} ids {spread(whole_s, ' ms', 1e3)}",
        spread(cheaper), f">= {BARS['head']}", median(cheaper) >= BARS["head"], "same ids", wrong,
    )  # fmt: skip


def turns(model: Model, scale: DrawingScale) -> Line:
    """The last turn of a conversation that draws, guided: all of it read anew, or what is new."""
    seen: list[list] = [[], []]

    def conversation(kept: bool) -> list[int]:
        generation = Generation(model, 1, 6 if kept else 0)
        parts: tuple = ()
        for turn in range(scale.turns):
            parts = (*parts, Text(f"draw {WORDS[turn % len(WORDS)]}", role="user"))
            before = generation.num_read
            generation.submit(Document(parts), greedy(GUIDANCE), "image")
            (done,) = [event for event in generation.run() if isinstance(event, ReplyDone)]
            parts = (*parts, *done.parts)
            seen[kept].append(generation.num_read - before)
        return [token for part in parts if isinstance(part, Image) for token in part.codes[:, 0]]

    wrong = () if conversation(False) == conversation(True) else ("other codes",)
    anew, new = seen[0][scale.turns - 1], seen[1][scale.turns - 1]
    whole_s, kept_s = timed(
        max(1, scale.repeats // 2), partial(conversation, False), partial(conversation, True)
    )
    return Line(
        f"a guided conversation of {scale.turns} drawings", spread(kept_s, " s"),
        f"prompts read anew {spread(whole_s, ' s')}", spread(ratios(whole_s, kept_s)), "", None,
        f"same codes; the last turn reads {new:,} tokens instead of {anew:,}", wrong,
    )  # fmt: skip


def lines(parts: tuple[str, ...], scale: DrawingScale) -> Iterator[Line]:
    """Yield the lines of some parts."""
    if "head" in parts:
        yield head(scale)
    if not {"one", "many", "turns", "drafts"} & set(parts):
        return
    model = unimodal.load()
    if "drafts" in parts:
        yield from drafts(model, scale)
    if "turns" in parts:
        yield turns(model, scale)
    if not {"one", "many"} & set(parts):
        return
    with tempfile.TemporaryDirectory() as folder:
        # A plain model of transformers has no embeddings of rows and columns.
        plain = save_bundle(Path(folder) / "plain", without_addresses(model))
        exported = run_export(plain, Path(folder) / "exported")
        model, int4 = unimodal.load(plain), unimodal.load(plain, weights="int4")
        int8 = unimodal.load(plain, weights="int8") if torch.cpu._is_vnni_supported() else None
        logging.getLogger("transformers").setLevel(logging.ERROR)
        peer = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32).eval()
    documents = [request(WORDS[n % len(WORDS)]) for n in range(scale.batch)]
    ways = {"fp32": Way(model), "int4": Way(int4)} | ({"int8": Way(int8)} if int8 else {})
    drafted = {f"{name}, {DRAFTS} drafts": Way(way.model, DRAFTS) for name, way in ways.items()}
    if "one" in parts:
        for name, guidance in (("guided", GUIDANCE), ("plain", None)):
            yield from drawing(name, ways | drafted, peer, documents[:1], guidance, scale)
    if "many" in parts:
        yield from drawing("many", ways | drafted, peer, documents, None, scale)


PARTS = ("one", "many", "head", "turns", "drafts")


@click.command()
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="A part; repeatable.")
@click.option("--threads", default=1, show_default=True, help="CPU threads of both sides.")
@click.option("--repeats", type=click.IntRange(1), help="Of each contender.")
@click.option("--quick", is_flag=True, help="Small sizes: shows that it works, and no more.")
def main(only: tuple[str, ...], threads: int, repeats: int | None, quick: bool) -> None:
    """Print the table."""
    torch.set_num_threads(threads)
    scale = QUICK if quick else DrawingScale()
    scale = replace(scale, repeats=repeats or scale.repeats)
    found = list(lines(only or PARTS, scale))
    print(table(found))
    sys.exit(any(line.wrong for line in found))


if __name__ == "__main__":
    main()

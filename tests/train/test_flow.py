"""The flow head: trained, resumed, packed, drawn from, kept in a conversation, refused."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from flow_cases import FLOW
from head_models import hidden_of, request
from PIL import Image as PILImage
from tiny_runs import metrics, recipe

from unimodal.branch import Branch
from unimodal.bundle import BundleError, load, save_bundle
from unimodal.chat import Chat
from unimodal.command import main
from unimodal.data.scenes.world import render, scene
from unimodal.document import Document, Image, Text
from unimodal.eval.run import run as ask
from unimodal.eval.scene_evaluator import SceneEvaluator
from unimodal.eval.scene_requests import make_requests
from unimodal.eval.scenes import cells_of
from unimodal.events import ImageDone, ImageProgress
from unimodal.generation import Generation, generate, stream
from unimodal.heads import flow
from unimodal.hub.grow import grow
from unimodal.image_tokenizers import load_tokenizer
from unimodal.model import Model
from unimodal.rectified_flow import FlowConfig, mixed
from unimodal.sampling import Sampling, normal_noise
from unimodal.sequence import IMAGE, Batch, Row, Span, span_mask
from unimodal.train import lm
from unimodal.train.objectives import LossConfig, language
from unimodal.train.run import LmRun
from unimodal.transcript import save_image
from unimodal.unified import UnifiedModel

pytestmark = pytest.mark.usefixtures("one_thread")
QUESTION = request("draw a red circle")


@pytest.fixture(scope="module")
def run(head_run: Callable[[str], LmRun], one_thread: None) -> LmRun:
    return head_run("flow")


@pytest.fixture(scope="module")
def latents(run: LmRun) -> Path:
    """A tokenizer of 64 latents of 4 numbers."""
    assert isinstance(run.tokenizer, Path)
    return run.tokenizer


@pytest.fixture(scope="module")
def model(run: LmRun) -> Model:
    """Its times and its velocity depend on everything: weights are larger than trained ones."""
    found = load(run.output / "bundle")
    with torch.no_grad():
        for name, parameter in found.transformer.named_parameters():
            if name.startswith(("head.", "embedder.", "model.layers")) and parameter.ndim == 2:
                parameter.mul_(2)
    return found


def drawing(model: Model, number: int, **more: object) -> Image:
    """Return a scene as latents."""
    (encoded,) = model.codec.encode([Image(pixels=render(scene(5, number), 64))])
    return replace(encoded, **more)


def drawn(model: Model, sampling: Sampling, document: Document = QUESTION) -> Image:
    ((image,),) = generate(model, [document], sampling, "image")
    assert isinstance(image, Image)
    return image


# --- training -----------------------------------------------------------------------------------


def test_latents_and_words_are_learned(run: LmRun) -> None:
    # A velocity of zero has a loss of E[(data - noise)^2] = 2; it has learned more than the mean.
    lines = metrics(run.output)
    text, image = (np.array([one[name] for one in lines]) for name in ("loss_text", "loss_image"))
    assert text[-5:].mean() < 0.8 * text[0] and image[-5:].mean() < 0.95 * image[0] < 2.2


def test_rows_hold_both_copies_of_an_image(model: Model) -> None:
    image = drawing(model, 0, role="assistant")
    document = Document((Text("draw", role="user"), image, Text("there", role="assistant")))
    sequence = model.sequencer.sequence(document, key=(1, 2))
    assert len(sequence) == model.sequencer.measure(document)[None]
    noised, clean = sequence.private > 0, sequence.block == 1
    n = 16  # tokens of 2 x 2 of 8 x 8 latents
    assert noised.sum() == clean.sum() == n
    np.testing.assert_array_equal(sequence.positions[noised], sequence.positions[clean])
    np.testing.assert_array_equal(sequence.address[noised], sequence.address[clean])
    assert sequence.address[clean].tolist()[5] == [2, 2]
    assert (sequence.modality[noised] == IMAGE).all() and (sequence.modality == IMAGE).sum() == n
    seen = model.sequencer.sequence(
        Document(tuple(replace(part, weight=0.0) for part in document.parts))
    )
    assert len(sequence) == len(seen) + n and sequence.positions[-1] == seen.positions[-1]
    mask = span_mask(*(torch.from_numpy(x)[None] for x in (
        np.zeros(len(sequence), int), sequence.block, sequence.private)))[0].numpy()  # fmt: skip
    assert not mask[~noised][:, noised].any() and mask[np.ix_(noised, noised)].all()
    assert not mask[np.ix_(noised, clean)].any() and mask[np.ix_(clean, clean)].all()
    names = model.sequencer.layout.opening(model.grid)[1:]
    assert names == [model.vocabulary.special("size_4")] * 2


def test_latents_become_tokens_and_come_back() -> None:
    grid = flow.Grid(4, 6)
    latents = np.arange(24 * 2, dtype=np.float32).reshape(24, 2)
    tokens = flow.to_tokens(latents, grid, 2)
    assert tokens.shape == (6, 8)
    # The second token has rows 0 and 1, columns 2 and 3.
    np.testing.assert_array_equal(tokens[1].reshape(4, 2), latents[[2, 3, 8, 9]])
    np.testing.assert_array_equal(flow.to_latents(tokens, grid, 2), latents)


def test_the_loss_is_its_formula(model: Model) -> None:
    """Two images of unlike weights beside a text-only document, in one row."""
    first, second = (drawing(model, n, weight=w) for n, w in ((1, 1.0), (2, 3.0)))
    sequences = [
        model.sequencer.sequence(Document(parts), key=(7, n))
        for n, parts in enumerate([(Text("a star"), first), (Text("words"),), (second,)])
    ]
    row = Row.pack(sequences, sum(map(len, sequences)) + 5, 0)
    batch = Batch.stack([row])
    with torch.inference_mode():
        losses = language(model.transformer, batch, LossConfig(text=0.0, image=0.5))
        projected = model.transformer.head.project(hidden_of(model, batch))
    total, count, weight = 0.0, 0.0, 0.0
    for span in row.spans:
        if span.noise is None:
            continue
        # v = data - noise; the loss of a token is the mean over its numbers.
        expected = torch.from_numpy(span.latents - span.noise)
        token_losses = ((projected[span.start : span.stop] - expected) ** 2).mean(1)
        weight = float(batch.weights[0, span.start])
        total, count = total + weight * float(token_losses.sum()), count + weight * len(expected)
    assert {s.noise is None for s in row.spans} == {True, False} and weight == 3.0
    assert float(losses.total) == pytest.approx(0.5 * total / count, rel=1e-5)
    assert losses.reports["loss_image"] == pytest.approx(total / count, rel=1e-5)


def load_copy(model: Model) -> UnifiedModel:
    found = UnifiedModel(model.transformer.architecture)
    found.load_state_dict(model.transformer.state_dict())
    return found


# --- drawing ------------------------------------------------------------------------------------


@torch.inference_mode()
def test_cached_steps_see_what_teacher_forcing_sees(model: Model, monkeypatch) -> None:
    """Each step's hidden vectors and velocities are those of a row that is read at once."""
    read: list[tuple[np.ndarray, float]] = []
    seen: list[tuple[torch.Tensor, np.ndarray]] = []
    reading, looking = flow.Flow._read, flow.velocities

    def noting(head, drawing, x_nd, time):
        read.append((x_nd, time))
        return reading(head, drawing, x_nd, time)

    def looked(head, table, hidden, settings, args):
        found = looking(head, table, hidden, settings, args)
        seen.append((hidden[0][0], found[0]))
        return found

    monkeypatch.setattr(flow.Flow, "_read", noting)
    monkeypatch.setattr(flow, "velocities", looked)
    given = drawing(model, 1, role="user", weight=0.0)
    question = Document((given, Text("and draw", role="user")))
    image = drawn(model, Sampling(seed=2, image_steps=3, image_solver="heun"), question)
    assert len(seen) == 5 and read[-1][1] == 1.0
    np.testing.assert_array_equal(
        flow.to_latents(read[-1][0], model.grid, FLOW.patch), image.latents
    )
    answered = Document((*question.parts, image))
    for (x_nd, time), (hidden, velocity) in zip(read, seen, strict=False):
        sequence = model.sequencer.sequence(answered, key=(1,))
        spans = tuple(
            replace(span, latents=x_nd, noise=None, time=time) if span.noise is not None else span
            for span in sequence.spans
        )
        forced = hidden_of(model, replace(sequence, spans=spans))
        (span,) = (one for one in spans if one.key)
        torch.testing.assert_close(hidden, forced[span.start : span.stop], atol=1e-4, rtol=0)
        with torch.inference_mode():
            expected = model.transformer.head.project(forced[span.start : span.stop])
        torch.testing.assert_close(torch.from_numpy(velocity), expected, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_training_mixes_what_drawing_would_read(model: Model) -> None:
    """A noised copy enters as its x_t would enter in a drawing."""
    sequence = model.sequencer.sequence(Document((drawing(model, 3),)), key=(9,))
    (span,) = (one for one in sequence.spans if one.noise is not None)
    x_nd = mixed(span.noise, span.latents, span.time)
    entered = replace(span, latents=x_nd, noise=None)
    both = [replace(sequence, spans=(one, *sequence.spans[1:])) for one in (span, entered)]
    first, second = (hidden_of(model, one) for one in both)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert 0 < span.time < 1


def test_guidance_extrapolates_velocities(model: Model) -> None:
    head = model.transformer.head
    hidden = [torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(n)) for n in (0, 1)]
    with torch.inference_mode():
        with_text, without = (head.project(one) for one in hidden)
        found = flow.velocities(head, torch.empty(0), hidden, None, [2.0, 0.5])
    for n, scale in enumerate((2.0, 0.5)):
        expected = without[n] + scale * (with_text[n] - without[n])
        torch.testing.assert_close(torch.from_numpy(found[n]), expected)


def rows_of_steps(model: Model, sampling: Sampling) -> list[int]:
    """Return how many rows of the cache are read in each step of a drawing."""
    generation, rows = Generation(model), []
    generation.submit(QUESTION, sampling, "image")
    reading = generation._branches.read

    def read(branches: list[Branch], num: int | None = None) -> None:
        reading(branches, num)
        rows.append(len(generation._branches._rows))

    generation._branches.read = read
    assert any(isinstance(event, ImageDone) for event in generation.run())
    return rows


def test_an_interval_drops_the_branch_outside_of_it(model: Model) -> None:
    steps = Sampling(seed=1, image_steps=8, guidance=3.0)
    rows = rows_of_steps(model, steps)
    assert rows[-10:].count(2) == 8  # of 8 steps and what follows the image
    inside = rows_of_steps(model, replace(steps, guidance_interval=(0.25, 0.5)))
    # The steps at 2/8, 3/8 and 4/8.
    assert len(inside) == len(rows) and inside.count(2) == 3
    first = inside.index(2)
    assert inside[first : first + 3] == [2] * 3
    assert len(set(inside[:first] + inside[first + 3 :])) == 1
    whole = drawn(model, replace(steps, guidance_interval=(0.0, 1.0)))
    np.testing.assert_array_equal(whole.latents, drawn(model, steps).latents)
    never = drawn(model, replace(steps, guidance_interval=(0.01, 0.02)))
    plain = drawn(model, replace(steps, guidance=None))
    np.testing.assert_allclose(never.latents, plain.latents, atol=1e-5)
    late = drawn(model, replace(steps, guidance_interval=(0.5, 1.0)))
    assert 1e-3 < np.abs(late.latents - plain.latents).max()


def test_partial_images_are_streamed(model: Model) -> None:
    sampling = Sampling(seed=6, image_steps=5, guidance=2.0)
    events = list(stream(model, [QUESTION], sampling, "image"))
    progress = [event for event in events if isinstance(event, ImageProgress)]
    (done,) = [event.image for event in events if isinstance(event, ImageDone)]
    assert len(progress) == 5 and [p.done for p in progress] == [12, 25, 38, 51, 64]
    assert all(p.total == 64 and p.partial is not None for p in progress)
    np.testing.assert_array_equal(progress[-1].partial.latents, done.latents)
    (pixels,) = model.codec.decode([progress[0].partial])
    assert pixels.pixels.shape == (64, 64, 3)
    # The first one is the line from the noise through the first velocity.
    assert np.abs(progress[0].partial.latents - done.latents).max() > 0


def test_noise_follows_the_seed_and_the_place(model: Model) -> None:
    first, again, other = (drawn(model, Sampling(seed=s, image_steps=2)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.latents, again.latents)
    assert np.abs(first.latents - other.latents).max() > 0.1
    assert not np.array_equal(normal_noise(1, 3, (8, 4)), normal_noise(1, 4, (8, 4)))


# --- bundles, chat, evaluation --------------------------------------------------------------------


def test_a_bundle_has_its_patches(run: LmRun) -> None:
    image = json.loads((run.output / "bundle" / "config.json").read_text())["image"]
    assert image["flow"]["patch"] == 2 and image["latent_width"] == 4


def test_a_chat_sees_what_it_has_edited(model: Model) -> None:
    chat = Chat(model, max_text_tokens=8, image_steps=3, guidance=2.0)
    chat("draw a red circle", modality="image")
    (edited,) = chat("make it blue", modality="image").images
    given = chat("what is this?", images=[edited], modality="text")
    assert given.end in ("stop", "text budget") and len(chat.document.parts) >= 7


def test_a_temperature_is_that_of_text_and_steps_are_those_of_drawing(
    model: Model, tmp_path: Path
) -> None:
    """Options of commands, on a bundle."""
    bundle = save_bundle(tmp_path / "bundle", model)
    words = f"chat --model {bundle} --temperature 0.5 --output {tmp_path / 'out'} --prompt".split()
    assert CliRunner().invoke(main, [*words, "what?"]).exit_code == 0
    words = f"eval scenes --model {bundle} --samples 1 --tasks drawing --seed 8".split()
    found = CliRunner().invoke(main, [*words, "--image-steps", "2"])
    assert found.exit_code == 0 and "image steps 2" in " ".join(found.output.split())
    refused = CliRunner().invoke(main, [*words, "--temperature", "0.5"])
    assert refused.exit_code == 2 and "flow has no image_temperature 0.5" in refused.output


def test_scenes_are_evaluated(model: Model) -> None:
    sampling = replace(model.sampling, max_text_tokens=8, max_images=1, image_steps=2)
    model = replace(model, sampling=sampling)
    for part in ("drawing", "edits", "questions"):
        evaluator = SceneEvaluator(make_requests(part, 1, 8)[:3], sampling, 8, canvas=64)
        predictions = ask(model, evaluator)
        assert len(predictions) == 3
        cells = cells_of(model, evaluator, predictions, lambda shown: render(shown, 64))
        kept = [one for one in predictions if one.get("latents")]
        if part != "questions":
            assert kept and all(len(p["latents"][0]) == 64 * 4 for p in kept) and cells


# --- what cannot be -------------------------------------------------------------------------------


def test_a_bundle_without_its_autoencoder_is_refused(model: Model, tmp_path: Path) -> None:
    bundle = save_bundle(tmp_path / "bundle", model)
    (bundle / "tokenizer.safetensors").unlink()
    with pytest.raises(BundleError, match="tokenizer.safetensors"):
        load(bundle)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("encode {image} --model {bundle} --output {out}.json", "makes latents, .* and no codes"),
        ("export {bundle} --format hf --output {out}", "image head flow, which no model of"),
        ("data encode {shards} {out} --tokenizer {latents}", "makes latents, .* and no codes"),
    ],
)
def test_what_needs_codes_is_refused(
    model: Model, latents: Path, shards: Path, tmp_path: Path, words: str, why: str
) -> None:
    bundle = save_bundle(tmp_path / "bundle", model)
    save_image(PILImage.fromarray(render(scene(1, 1), 64)), tmp_path / "a.png")
    names = {"image": tmp_path / "a.png", "bundle": bundle, "out": tmp_path / "out",
             "shards": shards, "latents": latents}  # fmt: skip
    found = CliRunner().invoke(main, words.format(**names).split())
    assert found.exit_code == 2 and len(found.output.strip().splitlines()) <= 2, found.output
    assert re.search(why, found.output), found.output


def test_a_grown_model_needs_codes(latents: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="makes latents, and a grown model reads codes"):
        grow(tmp_path / "none", load_tokenizer(latents), tmp_path / "grown")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda run: replace(run, model=replace(run.model, head="next_code", flow=None)),
         "next_code learns codes, and the image tokenizer makes latents"),
        (lambda run: replace(run, sampling=Sampling(image_top_k=5)), "flow has no image_top_k 5"),
        (lambda run: replace(run, model=replace(run.model, factorised=True)), "model.factorised"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_stop_before_the_run(
    run: LmRun, tmp_path: Path, change: Callable[[LmRun], LmRun], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        lm.train(change(replace(run, output=tmp_path / "run")))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_codes_and_latents_are_not_mixed_up(run, shards, tokenizer, tmp_path, model) -> None:
    with pytest.raises(ValueError, match="flow learns latents, and the image tokenizer makes code"):
        lm.train(replace(run, output=tmp_path / "a", tokenizer=tokenizer))
    plain = recipe(tmp_path / "b", shards, tokenizer, 1)
    with pytest.raises(ValueError, match="model.flow: the settings of another head than"):
        lm.train(replace(plain, model=replace(plain.model, flow=FlowConfig())))
    with pytest.raises(ValueError, match="next_code has no image_steps 4"):
        lm.train(replace(plain, sampling=Sampling(image_steps=4)))
    codes = Image(codes=np.zeros((64, 1), np.int64), grid=model.grid, codec_hash=model.codec.hash)
    with pytest.raises(ValueError, match="reads the latents of an image, and it has codes"):
        model.sequencer.sequence(Document((codes,)))


def test_impossible_drawings_are_refused(model: Model) -> None:
    for settings, why in (
        ({"image_steps": 0}, "image_steps 0: None or a whole number from 1"),
        ({"guidance": -1.0}, "guidance -1.0: None or a number from 0"),
        ({"guidance_interval": (0.8, 0.2)}, "guidance_interval .* 0 <= first < last <= 1"),
        ({"image_solver": "rk4"}, "image_solver 'rk4': euler or heun"),
    ):
        with pytest.raises(ValueError, match=why):
            Sampling(**settings)
    with pytest.raises(ValueError, match="flow has no image_temperature 0.5: leave it out"):
        generate(model, [QUESTION], Sampling(image_temperature=0.5))
    broken = load_copy(model)
    with torch.no_grad():
        broken.head.project.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="velocities are not finite"):
        generate(replace(model, transformer=broken.eval()), [QUESTION], Sampling(), "image")


def test_spans_say_what_enters() -> None:
    span = Span(0, 4, flow.Grid(2, 2), latents=np.ones((4, 3), np.float32))
    assert span.noise is None and span.time == 1.0 and span.has_content


def test_the_best_of_several_drawings_of_latents(model: Model) -> None:
    chat = Chat(model, candidates=3, seed=4)
    reply = chat("draw a red circle", modality="image")
    alone = Chat(model, seed=reply.seed)("draw a red circle", modality="image")
    assert np.abs(np.asarray(reply.images[0], int) - np.asarray(alone.images[0], int)).max() <= 1
    assert reply.seed in (4, 5, 6) and chat.sampling.seed == 7 and len(reply.notes) == 1

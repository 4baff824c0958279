"""A vision tower: trained or frozen, packed, resumed, kept in a bundle, chatted with, refused."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rl_cases
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from tiny_runs import metrics, recipe
from towers import MEAN, STD, images, vision_model, write_tower

from unimodal.attention import DenseAttention
from unimodal.bundle import load
from unimodal.chat import Chat
from unimodal.command import main
from unimodal.data.scenes.world import render
from unimodal.data.sources import SourceConfig
from unimodal.data.tar import ShardError
from unimodal.document import Document, Image, Text
from unimodal.eval.run import run as ask
from unimodal.eval.scene_evaluator import SceneEvaluator
from unimodal.eval.scene_requests import make_requests
from unimodal.eval.scenes import cells_of
from unimodal.events import ReplyDone
from unimodal.generation import Generation, stream
from unimodal.hub.export import export
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.sequence import Batch, Row, Sequence, span_mask
from unimodal.tower import NETWORK, PROJECTOR, is_given
from unimodal.train import lm
from unimodal.train.checkpoint import EMA, newest
from unimodal.train.given import read_given
from unimodal.train.heldout import HeldOutConfig
from unimodal.train.lora import LoraConfig
from unimodal.train.plan.plan import plan
from unimodal.train.ranks import Ranks
from unimodal.train.rl.train import read_given as read_rl
from unimodal.train.rl.train import train_on
from unimodal.train.run import LmRun
from unimodal.train.tower import TowerConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tower(tmp_path_factory) -> Path:
    """A CLIP of 16 patches, whose images are cropped out of the middle."""
    return write_tower(tmp_path_factory.mktemp("tower"), "clip")


def configured(output: Path, shards: Path, tokenizer: Path, tower: Path, **changes) -> LmRun:
    """Return a run of four steps, a checkpoint at each second, with averaged weights."""
    run = recipe(output, shards, tokenizer, 4, save_every_steps=2)
    setting = TowerConfig(str(tower), layer=-2, **changes)
    held_out = HeldOutConfig({"scenes": SourceConfig(str(shards))}, rows=1, every_steps=2)
    optimizer = replace(run.optimizer, ema_decay=0.5)
    return replace(run, tower=setting, optimizer=optimizer, held_out=held_out)


@pytest.fixture(scope="module")
def run(tmp_path_factory, shards, tokenizer, tower) -> LmRun:
    """A run with a frozen tower."""
    found = configured(tmp_path_factory.mktemp("frozen") / "run", shards, tokenizer, tower)
    lm.train(found)
    return found


@pytest.fixture(scope="module")
def both_run(tmp_path_factory, shards, tokenizer, tower) -> LmRun:
    """A run with a trained tower, where given images enter as codes too."""
    output = tmp_path_factory.mktemp("both") / "run"
    found = configured(output, shards, tokenizer, tower, trained=True, codes=True)
    lm.train(found)
    return found


@pytest.fixture(scope="module")
def model(run: LmRun) -> Model:
    return load(run.output / "bundle")


@pytest.fixture(scope="module")
def both_model(both_run: LmRun) -> Model:
    return load(both_run.output / "bundle")


@pytest.fixture(params=["soft", "both"])
def either(request, model: Model, both_model: Model) -> Model:
    return model if request.param == "soft" else both_model


def given(model: Model, seed: int) -> Image:
    (pixels,) = images(1, seed, (64, 64))
    (image,) = model.codec.encode([Image(pixels, role="user", weight=0.0)])
    return image


def asked(model: Model, seed: int, text: str) -> Document:
    return Document((given(model, seed), Text(text, role="user", weight=0.0)))


@torch.no_grad()
def hidden_of(model: Model, *sequences: Sequence) -> torch.Tensor:
    """Return the hidden vectors of a packed row that is read at once, by a dense mask."""
    batch = Batch.stack([Row.pack(sequences, sum(map(len, sequences)), 0)])
    attend = DenseAttention(span_mask(batch.doc, batch.block, batch.private))
    return model.transformer.hidden_states(batch, batch.positions, attend)[0]


def network(path: Path) -> dict[str, torch.Tensor]:
    return {k: v for k, v in load_file(path).items() if k.startswith(NETWORK)}


# --- training -----------------------------------------------------------------------------------


def test_a_frozen_tower_stays_and_takes_no_state(run: LmRun) -> None:
    before = network(run.output / "tower.safetensors")
    after = network(run.output / "bundle" / "model.safetensors")
    assert len(before) > 30 and before.keys() == after.keys()
    for name, weight in before.items():
        assert after[name].dtype == torch.float32 and torch.equal(after[name], weight)
    last = newest(run.output)
    assert last is not None
    names = [name for name in last.shapes if name.startswith("tower.")]
    layers, kinds = ("first", "second"), ("bias", "weight")
    assert sorted(names) == [f"{PROJECTOR}{layer}.{kind}" for layer in layers for kind in kinds]
    assert all(last.kinds[name] >= {EMA, "exp_avg", "exp_avg_sq"} for name in names)
    assert metrics(run.output)[-1]["loss"] < metrics(run.output)[0]["loss"]


def test_a_trained_tower_learns_all_of_it(both_run: LmRun) -> None:
    before = network(both_run.output / "tower.safetensors")
    last = newest(both_run.output)
    assert last is not None
    assert {name for name in last.shapes if name.startswith(NETWORK)} == before.keys()
    # A key's bias moves every score of a query alike, so that the softmax takes no notice of it.
    same = [n for n, one in before.items() if torch.allclose(last.whole(n), one, atol=1e-5, rtol=0)]
    assert all(name.endswith("key.bias") for name in same)


@pytest.mark.parametrize("which", ["run", "both_run"])
def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path, request, which: str) -> None:
    whole: LmRun = request.getfixturevalue(which)
    part = replace(whole, output=tmp_path / "b")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm, "_finish", lambda *_: None)
        lm.train(replace(part, schedule=replace(part.schedule, num_steps=2)))
    lm.train(part)
    said = "step", "loss", "gradient_norm"
    losses = [
        [[line[name] for name in said] for line in metrics(one.output)] for one in (part, whole)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    names = "bundle/model.safetensors", "bundle/config.json"
    assert all((part.output / n).read_bytes() == (whole.output / n).read_bytes() for n in names)


def test_a_bundle_is_gone_on_with_frozen_or_trained(tmp_path, run: LmRun, tokenizer) -> None:
    bundle = run.output / "bundle"
    again = replace(run, output=tmp_path / "a", weights=bundle, text_ids=None, model=None)
    lm.train(replace(again, tower=None))
    frozen = network(tmp_path / "a" / "bundle" / "model.safetensors")
    expected = network(bundle / "model.safetensors")
    assert all(torch.equal(frozen[name], weight) for name, weight in expected.items())
    lm.train(replace(again, output=tmp_path / "b", tower=TowerConfig(trained=True)))
    trained = network(tmp_path / "b" / "bundle" / "model.safetensors")
    assert any(not torch.equal(trained[name], weight) for name, weight in expected.items())
    with pytest.raises(ValueError, match="`weights` has a vision tower already"):
        read_given(replace(again, tower=run.tower), 1)
    with pytest.raises(ValueError, match="tower.codes True: how `weights` is given images"):
        read_given(replace(again, tower=TowerConfig(codes=True)), 1)


def test_a_model_of_codes_gets_a_tower(tmp_path, shards, tokenizer, run: LmRun) -> None:
    plain = recipe(tmp_path / "plain", shards, tokenizer, 2)
    lm.train(plain)
    more = replace(run, output=tmp_path / "more", weights=plain.output / "bundle", text_ids=None)
    with pytest.raises(ValueError, match="`weights` has no vision tower"):
        read_given(replace(more, tower=TowerConfig(trained=True)), 1)
    lm.train(replace(more, schedule=replace(more.schedule, num_steps=2)))
    found = load(more.output / "bundle")
    assert found.transformer.architecture.image.tower is not None
    source = network(more.output / "tower.safetensors")
    state = found.transformer.state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in source.items())


def test_adapters_learn_beside_a_frozen_tower(tmp_path, run: LmRun) -> None:
    """Its query and key matrices have the names of the language model's, and get none."""
    pytest.importorskip("peft", reason="needs the extra `train`: peft")
    optimizer = replace(run.optimizer, muon_lr=None)
    adapted = replace(
        run, output=tmp_path / "lora", weights=run.output / "bundle", text_ids=None, model=None,
        tower=None, lora=LoraConfig(rank=2), optimizer=optimizer,
    )  # fmt: skip
    lm.train(adapted)
    last = newest(adapted.output)
    assert last is not None
    towers = [name for name in last.shapes if name.startswith("tower.")]
    assert len(towers) == 4 and all(name.startswith(PROJECTOR) for name in towers)
    expected = network(run.output / "bundle" / "model.safetensors")
    found = network(adapted.output / "bundle" / "model.safetensors")
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    adapter = load_file(adapted.output / "adapter" / "adapter_model.safetensors")
    assert adapter and not any("tower" in name for name in adapter)


def test_rewards_teach_a_model_with_a_tower(tmp_path, run: LmRun) -> None:
    config = rl_cases.recipe(tmp_path / "rl", run.output / "bundle", 1)
    config = replace(config, prompts=replace(config.prompts, mix={"edits": 1.0}))
    train_on(config, read_rl(config, 1), Ranks())
    expected = network(run.output / "bundle" / "model.safetensors")
    found = network(config.output / "bundle" / "model.safetensors")
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_a_plan_counts_the_tower(run: LmRun, both_run: LmRun) -> None:
    plain = plan(replace(run, tower=None), 1, 80)
    frozen, trained = (plan(one, 1, 80) for one in (run, both_run))
    weights = sum(one.numel() for one in network(run.output / "tower.safetensors").values())
    projector = 24 * 32 + 32 + 32 * 32 + 32
    assert frozen.parameters == trained.parameters == plain.parameters + weights + projector
    assert frozen.trained == plain.trained + projector
    assert trained.trained == frozen.trained + weights


# --- what the model sees ------------------------------------------------------------------------


def test_soft_vectors_are_hidden_states_through_the_projector(model: Model) -> None:
    """Layer -2 of CLIP's own class, and two layers written out."""
    image = given(model, 1)
    sequence = model.sequencer.prompt(Document((image, Text("what?", role="user"))))
    (span,) = sequence.spans
    assert span.pixels is not None and image.pixels is not None
    tower = model.transformer.architecture.image.tower
    assert tower is not None
    np.testing.assert_array_equal(span.pixels, tower.view(image.pixels))
    state, names = model.transformer.state_dict(), ["first", "second"]
    w1, b1, w2, b2 = (
        state[f"{PROJECTOR}{name}.{kind}"] for name in names for kind in ("weight", "bias")
    )
    pixels = (torch.tensor(span.pixels) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.no_grad():
        normalised = pixels.permute(2, 0, 1)[None].float()
        states = vision_model("clip")(normalised, output_hidden_states=True).hidden_states
        expected = torch.nn.functional.gelu(states[-2][0, 1:] @ w1.T + b1) @ w2.T + b2
        batch = Batch.stack([Row.pack([sequence], len(sequence), 0)])
        x = model.transformer.tower(model.transformer.embed(batch.ids), batch)[0]
        plain = model.transformer.embed(batch.ids)[0]
    torch.testing.assert_close(x[span.start : span.stop], expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(x[: span.start], plain[: span.start])
    assert torch.equal(x[span.stop :], plain[span.stop :])


def test_half_precision_sees_nearly_the_same(either: Model) -> None:
    tower = either.transformer.architecture.image.tower
    assert tower is not None
    views = [tower.view(pixels) for pixels in images(2, 4, (64, 64))]
    with torch.no_grad():
        exactly = either.transformer.tower.see(views)
        with torch.autocast("cpu", torch.bfloat16):
            nearly = either.transformer.tower.see(views)
    assert nearly.dtype == torch.bfloat16
    error = (nearly.float() - exactly).square().mean().sqrt() / exactly.square().mean().sqrt()
    assert 0 < error < 0.05


def test_what_is_given_is_soft_and_what_is_drawn_is_codes(model: Model, both_model: Model) -> None:
    for found, has_codes in ((model, False), (both_model, True)):
        user, vocabulary = given(found, 1), found.vocabulary
        drawn = replace(user, role="assistant", weight=1.0)
        sequence = found.sequencer.sequence(Document((user, drawn)))
        assert [span.pixels is not None for span in sequence.spans].count(True) == 1
        num_codes = int(vocabulary.is_code(sequence.ids).sum())
        assert num_codes == found.grid.size * (1 + has_codes)
        document = Document((user, drawn))
        assert len(sequence) == found.sequencer.measure(document)[None]
        # Nothing of the given image is a target, all codes of the drawn one are.
        codes = vocabulary.is_code(sequence.labels)
        assert int(codes.sum()) == int((sequence.modality == 2).sum()) == found.grid.size
        dropped = found.sequencer.sequence(document, drop="images")
        assert len(dropped) == found.sequencer.measure(document)["images"]
        assert all(span.pixels is None for span in dropped.spans)


def test_context_outside_of_turns_is_given() -> None:
    pixels = images(1)[0]
    assert is_given(Image(pixels, role="user")) and is_given(Image(pixels, weight=0.0))
    assert not is_given(Image(pixels)) and not is_given(Image(pixels, role="assistant", weight=0.0))


def test_packed_documents_see_their_own_images_alone(either: Model) -> None:
    sequences = [
        either.sequencer.sequence(Document((*asked(either, seed, "what is this?").parts,
                                            Text("a red circle", role="assistant"))))
        for seed in range(3)
    ]  # fmt: skip
    packed, at = hidden_of(either, *sequences), 0
    hiddens = [hidden_of(either, sequence) for sequence in sequences]
    assert (hiddens[0] - hiddens[1]).abs().max() > 1e-2  # the images tell
    for hidden in hiddens:
        torch.testing.assert_close(packed[at : at + len(hidden)], hidden, atol=1e-4, rtol=0)
        at += len(hidden)


# --- replies ------------------------------------------------------------------------------------


def replied(model: Model, documents: list[Document], modalities: list) -> list[ReplyDone]:
    sampling = Sampling(seed=3, text_temperature=1.0, max_text_tokens=6, guidance=2.0)
    events = stream(model, documents, sampling, modalities)
    done = [event for event in events if isinstance(event, ReplyDone)]
    return sorted(done, key=lambda one: one.request)


def test_cached_steps_are_teacher_forced_and_a_batch_is_each_alone(
    either: Model, monkeypatch
) -> None:
    seen: dict[tuple[int, int], torch.Tensor] = {}
    original = Generation._logits

    def noted(generation, choice, members):
        logits = original(generation, choice, members)
        for member, row in zip(members, logits, strict=True):
            seen[member.number, len(member.state.ids)] = row[torch.from_numpy(choice.allowed)]
            seen[member.number, -1 - len(member.state.ids)] = torch.from_numpy(choice.allowed)
        return logits

    monkeypatch.setattr(Generation, "_logits", noted)
    documents = [
        asked(either, 1, "what is this?"),
        Document((Text("words alone", role="user"),)),
        Document((*asked(either, 2, "and").parts, given(either, 5), Text("?", role="user"))),
        asked(either, 3, "draw it again"),
    ]
    modalities = ["text", "text", "text", "image"]
    together = replied(either, documents, modalities)
    noticed = dict(seen)
    for number, reply in enumerate(together[:3]):
        prompt = either.sequencer.prompt(documents[number])
        tail = Sequence.causal(np.array(reply.ids))
        whole = Sequence(**{
            name: np.concatenate([getattr(prompt, name), getattr(tail, name)])
            for name in Sequence.ARRAYS if name != "positions"
        }, positions=np.arange(len(prompt) + len(tail)), spans=prompt.spans)  # fmt: skip
        logits = hidden_of(either, whole) @ either.transformer.output_table().detach().T
        places = [at for n, at in noticed if n == number and at >= 0]
        assert len(places) >= 3
        for at in places:
            allowed = noticed[number, -1 - at]
            expected = logits[len(prompt) + at - 1][: len(allowed)][allowed]
            torch.testing.assert_close(noticed[number, at], expected, atol=1e-4, rtol=0)
    for number, document in enumerate(documents):
        (alone,) = replied(either, [document], [modalities[number]])
        assert alone.ids == together[number].ids


def test_a_chat_shows_asks_and_draws(either: Model, tmp_path: Path) -> None:
    from PIL import Image as PILImage

    PILImage.fromarray(images(1, 8, (80, 100))[0]).save(tmp_path / "given.png")
    chat = Chat(either, max_text_tokens=4, seed=1)
    first = chat("what is this?", [str(tmp_path / "given.png")], "text")
    assert first.end and not first.images
    second = chat("draw it", modality="image")
    assert second.images[0].size == either.canvas
    document = chat.document
    sequence = either.sequencer.prompt(document)
    assert sum(span.pixels is not None for span in sequence.spans) == 1
    # The image alone makes the difference.
    other = Document((given(either, 77), *document.parts[1:]))
    assert (hidden_of(either, sequence) - hidden_of(either, either.sequencer.prompt(other))).any()


def test_scenes_are_evaluated(either: Model) -> None:
    """Questions and edits give images; their answers are kept and scored as any model's."""
    sampling = replace(either.sampling, max_text_tokens=4, max_images=1)
    found = replace(either, sampling=sampling)
    for part in ("edits", "questions"):
        evaluator = SceneEvaluator(make_requests(part, 1, 8)[:2], sampling, 8, canvas=64)
        predictions = ask(found, evaluator)
        assert len(predictions) == 2
        assert cells_of(found, evaluator, predictions, lambda shown: render(shown, 64))


# --- files and errors ---------------------------------------------------------------------------


def test_a_snapshot_of_a_run_is_its_bundle(run: LmRun, tmp_path: Path) -> None:
    snapshot = lm.snapshot(run, tmp_path / "snapshot")
    weights = [folder / "model.safetensors" for folder in (snapshot, run.output / "bundle")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_bundle_says_all_of_the_tower(model: Model, run: LmRun) -> None:
    stored = json.loads((run.output / "bundle" / "config.json").read_text())["image"]["tower"]
    assert stored["mean"] == MEAN and stored["std"] == STD and stored["side"] == 32
    assert stored["network"]["kind"] == "clip" and stored["network"]["num_layers"] == 2
    assert stored["trained"] is False and stored["codes"] is False


def test_a_model_of_codes_writes_no_tower(tiny_model: Model, tmp_path: Path) -> None:
    from unimodal.bundle import save_bundle

    bundle = save_bundle(tmp_path / "plain", tiny_model)
    assert "tower" not in json.loads((bundle / "config.json").read_text())["image"]


def test_it_has_no_export(run: LmRun, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="given images by a vision tower"):
        export(run.output / "bundle", tmp_path / "export")


def test_shards_of_codes_alone_are_refused(tmp_path, shards, tokenizer, run: LmRun) -> None:
    words = ["data", "encode", str(shards), str(tmp_path / "codes"), "--tokenizer", str(tokenizer)]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    sources = {"scenes": SourceConfig(str(tmp_path / "codes"))}
    with pytest.raises(ShardError, match="has codes alone") as caught:
        lm.train(replace(run, output=tmp_path / "run", sources=sources))
    said = re.sub(r"\s+", " ", str(caught.value))
    assert "take the shards that these were encoded from, or train without `tower`" in said


def test_what_is_given_is_not_learned_whatever_its_weight(either: Model) -> None:
    from unimodal.data.estimator import LengthEstimator

    document = Document((replace(given(either, 0), weight=0.5), Text("?", role="user", weight=0.0)))
    assert not either.sequencer.sequence(document).weights.any()
    seen = LengthEstimator(either.sequencer, 512, either.codec.geometry).seen(document)
    assert [part.weight for part in seen.parts] == [0, 0]


def test_an_image_of_codes_alone_is_not_seen(model: Model) -> None:
    document = Document((replace(given(model, 0), pixels=None), Text("what?", role="user")))
    with pytest.raises(ValueError, match="vision tower reads the pixels"):
        model.sequencer.prompt(document)


def test_a_tower_needs_a_name(run: LmRun) -> None:
    (problem,) = replace(run, tower=TowerConfig()).problems()
    assert problem.startswith("tower.network: name a vision model")
    assert TowerConfig(layer=0).problems() and TowerConfig(side=0).problems()

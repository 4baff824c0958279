"""The house's loss of published models, on small random weights: steps lower it."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import launching
import numpy as np
import published_models as made
import pytest
import torch
import transformers
from click.testing import CliRunner
from pair import Pair
from PIL import Image as PILImage
from safetensors.torch import load_file, save_file
from tiny_runs import metrics

import unimodal
from unimodal.attention import DenseAttention
from unimodal.branches import BranchInput
from unimodal.bundle import read_contents, save_bundle
from unimodal.command import main
from unimodal.config import save
from unimodal.data.command import SceneShards
from unimodal.data.loader import LoaderConfig
from unimodal.data.scenes.conversations import Mix
from unimodal.data.shards import ShardWriter
from unimodal.data.sizes import ImageRule
from unimodal.data.sources import SourceConfig
from unimodal.document import Document, Image, Text
from unimodal.families.bundled import as_bundle
from unimodal.families.exported import export_like
from unimodal.families.fits import AreaFit, BucketFit
from unimodal.generation import generate
from unimodal.hub.export import export
from unimodal.model import Model
from unimodal.sequence import Batch, Row
from unimodal.tensors import SINGLE
from unimodal.tokenizer.grid import Grid
from unimodal.tower import NETWORK, PROJECTOR
from unimodal.train import lm
from unimodal.train.given import begin_published
from unimodal.train.heldout import HeldOutConfig
from unimodal.train.initial import ShapeConfig
from unimodal.train.learner import TOTAL, LanguageLearner
from unimodal.train.lock import Locked, held
from unimodal.train.loop import LoopConfig
from unimodal.train.lora import LoraConfig
from unimodal.train.objectives import LossConfig
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.plan.plan import plan
from unimodal.train.ranks import Ranks
from unimodal.train.run import LmRun
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.tower import TowerConfig
from unimodal.train.zero import EngineConfig

ROOT = Path(__file__).resolve().parents[2]
MAKERS = {
    "emu3": lambda at: made.save_emu3(at, made.emu3_model()),
    "janus": lambda at: made.save_janus(at, made.janus_model()),
    "anole": lambda at: made.save_anole(at, made.chameleon_model()),
    "lumina": lambda at: made.save_lumina(at, made.lumina_model()),
    "liquid": lambda at: made.save_liquid(at, made.liquid_model()),
}


def smaller(model: Model) -> Model:
    """The model, which draws and is given small images where it may."""
    if isinstance(model.fit, BucketFit):
        return replace(model, grid=Grid(2, 6), fit=BucketFit(64, 32))
    return replace(model, grid=Grid(3, 5)) if isinstance(model.fit, AreaFit) else model


def rows(model: Model) -> Batch:
    """A question about an image with its answer, and a request with the image that grants it."""
    noise = np.random.default_rng(1).integers(0, 256, (30, 20, 3), np.uint8)
    pixels, _ = model.fitted(PILImage.fromarray(noise))
    (shown,) = model.codec.encode([Image(pixels, role="user", weight=0.0)])
    asked = Document((shown, Text("what?", "user", 0.0), Text("a dog", "assistant")))
    drawn = Image(
        codes=np.arange(model.grid.size)[:, None] % made.NUM_CODES, grid=model.grid,
        codec_hash=shown.codec_hash, role="assistant",
    )  # fmt: skip
    wanted = Document((Text("a dog", "user", 0.0), drawn))
    sequences = [model.sequencer.sequence(asked), model.sequencer.sequence(wanted)]
    pad = model.vocabulary.special("pad")
    return Batch.stack([Row.pack(sequences, sum(map(len, sequences)) + 3, pad)])


@pytest.mark.parametrize("name", MAKERS)
def test_steps_lower_the_loss(name: str, tmp_path: Path):
    model = smaller(unimodal.load(MAKERS[name](tmp_path)))
    batch = rows(model)
    assert (batch.modality == 2).sum() == model.grid.size and (batch.modality == 1).sum() > 3
    before = model.image_tokenizer.hash
    learner = LanguageLearner(model.transformer.train(), LossConfig(), ["all"])
    optimizer = torch.optim.Adam(model.transformer.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        total = learner(batch)[TOTAL]
        losses.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    still = {n for n, p in model.transformer.named_parameters() if p.grad is None}
    frozen = {n for n, _ in model.transformer.named_parameters() if n.startswith(NETWORK)}
    assert still == frozen and bool(frozen) == (name == "janus")
    assert model.image_tokenizer.hash == before


HELD_OUT = ("held_out.scenes.text", "held_out.scenes.image")

# --- whole runs from a bundle -------------------------------------------------------------------


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Requests that an image alone grants, and questions about images."""
    folder = tmp_path_factory.mktemp("talks")
    scenes = SceneShards("conversations", 64, 7, 64, 64, asdict(Mix()))
    with ShardWriter(folder, max_samples=64) as writer:
        for index in range(64):
            writer.write(f"{index:06d}", scenes.document(index))
    return folder


def bundle_of(name: str, folder: Path) -> Path:
    """A family's checkpoint, and the bundle that the command makes of it."""
    made_of, bundle = MAKERS[name](folder / "published"), folder / "bundle"
    words = ["grow", str(made_of), "--output", str(bundle)]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0 and done.output.strip() == str(bundle), done.output
    return bundle


def run(begins: Path, talks: Path, output: Path, **changes: Any) -> LmRun:
    """A run that begins with a bundle, or with a published model."""
    multiple = 32 if isinstance(unimodal.load(begins).fit, BucketFit) else 4
    images = ImageRule(max(24, multiple) ** 2, multiple)
    return LmRun(
        output=output,
        sources={"scenes": SourceConfig(str(talks))},
        tokenizer=begins,
        schedule=ScheduleConfig(4, warmup_steps=1),
        weights=begins,
        loader=LoaderConfig(sequence_length=512, batch_rows=2, window_rows=8, images=images),
        held_out=HeldOutConfig({"scenes": SourceConfig(str(talks))}, rows=8, every_steps=4),
        optimizer=OptimizerConfig(lr=3e-3),
        loop=LoopConfig(save_every_steps=1000, num_threads=1),
        precision="fp32",
        **changes,
    )


def first(model: Model) -> tuple[torch.Tensor, list[int]]:
    """Hidden vectors of a question about an image, and the codes that are likeliest of a drawing;
    none where the model draws nothing.
    """
    noise = np.random.default_rng(1).integers(0, 256, (30, 20, 3), np.uint8)
    model = smaller(model)
    pixels, _ = model.fitted(PILImage.fromarray(noise))
    (shown,) = model.codec.encode([Image(pixels, role="user")])
    prompt = model.sequencer.prompt(Document((shown, Text("what?", "user"))))
    n = len(prompt.ids)
    tokens = BranchInput(
        torch.from_numpy(prompt.ids)[None], torch.zeros(1, n, 2, dtype=torch.int64), [prompt.spans]
    )
    attend = DenseAttention(torch.ones(n, n, dtype=torch.bool).tril()[None])
    with torch.inference_mode():
        hidden = model.transformer.hidden_states(tokens, torch.arange(n)[None], attend)
    sampling = replace(model.sampling, image_temperature=0.0)
    ((image,),) = generate(model, [Document((Text("a dog", "user"),))], sampling, "image")
    return hidden, image.codes[:, 0].tolist()


@pytest.mark.parametrize("name", MAKERS)
def test_a_bundle_is_the_model_that_it_was_made_of(name: str, tmp_path: Path):
    bundle = bundle_of(name, tmp_path)
    found, expected = unimodal.load(bundle), unimodal.load(tmp_path / "published")
    assert (found.fit, found.sampling, found.grid) == (
        expected.fit,
        expected.sampling,
        expected.grid,
    )
    assert found.card == expected.card and found.replies == expected.replies
    weights = expected.transformer.state_dict()
    assert found.transformer.state_dict().keys() == weights.keys()
    assert all(torch.equal(one, weights[n]) for n, one in found.transformer.state_dict().items())
    (hidden, codes), (hidden_before, codes_before) = first(found), first(expected)
    assert torch.equal(hidden, hidden_before) and codes == codes_before
    again = unimodal.load(save_bundle(tmp_path / "saved", expected))  # rounded to bfloat16
    assert again.fit == expected.fit
    torch.testing.assert_close(first(again)[0], hidden, atol=0.3, rtol=0.1)
    with pytest.raises(ValueError, match="in that model's own form: name it by --like"):
        export(bundle, tmp_path / "exported")
    exported = export_like(
        bundle, str(tmp_path / "published"), tmp_path / "exported", _quiet, 2**16
    )
    assert (exported / "model.safetensors.index.json").is_file()
    model = unimodal.load(exported)
    assert first(model)[1] == codes and model.card["model_type"] == expected.card["model_type"]
    words = ["grow", str(tmp_path / "published"), "--grid", "2x2", "--output", str(tmp_path / "x")]
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 2 and "reads and draws already" in refused.output


@pytest.mark.parametrize("name", ["chat", "chameleon"])
def test_a_bundle_of_a_model_that_reads_alone_answers_as_it_does(name: str, tmp_path: Path):
    if name == "chat":
        made.save_emu3(tmp_path / "published", made.emu3_model(131072))
    else:
        made.save_chameleon(tmp_path / "published", made.chameleon_model())
    bundle = as_bundle(str(tmp_path / "published"), tmp_path / "bundle")
    photo = PILImage.new("RGB", (40, 30), (200, 30, 90))
    said = [
        unimodal.Chat(unimodal.load(one), max_text_tokens=6)("what?", [photo]).text
        for one in (bundle, tmp_path / "published")
    ]
    assert said[0] == said[1] != "" and unimodal.load(bundle).replies == ("text",)


def _quiet(done: int, total: int) -> None:
    pass


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "name", ["emu3", "janus", "lumina", pytest.param("anole", marks=pytest.mark.slow)]
)
def test_two_ranks_of_zero_3_train_as_one_process_does(
    name: str, talks: Path, tmp_path: Path, pair: Pair
):
    bundle = bundle_of(name, tmp_path)
    lm.train(run(bundle, talks, tmp_path / "one"))
    zero = EngineConfig(deepspeed=ROOT / "configs" / "zero3.json", timeout_s=100)
    save(run(bundle, talks, tmp_path / "two", engine=zero), tmp_path / "lm.yaml")
    pair(launching.train, str(tmp_path / "lm.yaml"))
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert len(one) == 4 and all(step["targets_text"] for step in one)
    for kind, least in (("loss_image", 2), ("loss_text", 4)):
        losses = [step[kind] for step in one if kind in step]
        assert len(losses) >= least
        np.testing.assert_allclose([step[kind] for step in two if kind in step], losses, rtol=1e-4)
    begun = json.loads((tmp_path / "two" / "before.json").read_text())
    assert all(two[-1][name] < begun[name] for name in HELD_OUT)
    before, after = unimodal.load(bundle), unimodal.load(tmp_path / "two" / "bundle")
    assert (after.fit, after.sampling) == (before.fit, before.sampling)
    frozen = [n for n in before.transformer.state_dict() if n.startswith(NETWORK)]
    old, new = before.transformer.state_dict(), after.transformer.state_dict()
    assert all(torch.equal(old[n], new[n]) for n in frozen)
    assert not torch.equal(old["model.norm.weight"], new["model.norm.weight"])
    chat = unimodal.Chat(after, max_text_tokens=3)
    assert chat("a dog", modality="text").end in ("stop", "text budget")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "name",
    [
        "janus",
        "lumina",
        "liquid",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("emu3", "anole")),
    ],
)
def test_adapters_are_merged(name: str, talks: Path, tmp_path: Path):
    """In a run that makes the bundle itself."""
    pytest.importorskip("peft", reason="needs the extra `train`: peft")
    published = MAKERS[name](tmp_path / "published")
    lm.train(run(published, talks, tmp_path / "run", lora=LoraConfig(rank=4, targets=("q_proj",))))
    old, new = (
        unimodal.load(tmp_path / "run" / one).transformer.state_dict()
        for one in ("weights", "bundle")
    )
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    # There are no new ids: beside the adapters Janus' own parts for codes learn, and its projector.
    assert {name for name in changed if name.startswith("model.")} == {
        f"model.layers.{k}.self_attn.q_proj.weight" for k in range(2)
    }
    parts = {name for name in old if name.startswith(("head.", "embedder.", PROJECTOR))}
    assert changed - parts == {name for name in changed if name.startswith("model.")}
    assert parts <= changed and not any(name.startswith(NETWORK) for name in changed)
    assert bool(parts) == (name == "janus")
    words = ["export", str(tmp_path / "run" / "bundle"), "--format", "hf", "--output"]
    words += [str(tmp_path / "exported"), "--like"]
    done = CliRunner().invoke(main, [*words, str(tmp_path / "published")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    _same_as_transformers(name, tmp_path / "exported", tmp_path / "run" / "bundle")
    other = MAKERS["janus" if name == "emu3" else "emu3"](tmp_path / "other")
    refused = CliRunner().invoke(main, [*words[:-2], str(tmp_path / "x"), "--like", str(other)])
    assert refused.exit_code == 2 and "is not made of" in refused.output, refused.output


CLASSES = {
    "emu3": transformers.Emu3ForConditionalGeneration,
    "janus": transformers.JanusForConditionalGeneration,
    "anole": transformers.ChameleonForConditionalGeneration,
    "lumina": transformers.ChameleonForConditionalGeneration,
    "liquid": transformers.GemmaForCausalLM,
}


def _same_as_transformers(name: str, exported: Path, bundle: Path) -> None:
    """What transformers reads of an export answers as the bundle does."""
    theirs = CLASSES[name].from_pretrained(exported, tie_word_embeddings=name == "liquid")
    model = unimodal.load(bundle)
    ids_1n = torch.from_numpy(model.sequencer.prompt(Document((Text("a dog?", "user"),))).ids)[None]
    n = ids_1n.shape[1]
    tokens = BranchInput(ids_1n, torch.zeros(1, n, 2, dtype=torch.int64), [()])
    attend = DenseAttention(torch.ones(n, n, dtype=torch.bool).tril()[None])
    with torch.inference_mode():
        hidden = model.transformer.hidden_states(tokens, torch.arange(n)[None], attend)
        expected = model.transformer.logits(hidden)
        # Through the bare head: Chameleon's class puts out the logits of codes.
        found = theirs.lm_head(theirs.model(input_ids=ids_1n).last_hidden_state)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


# --- whole runs from a published model ----------------------------------------------------------


def learned(folder: Path) -> set[str]:
    """The losses on what a run has not seen that are lower than before it."""
    begun, last = json.loads((folder / "before.json").read_text()), metrics(folder)[-1]
    return {name for name in HELD_OUT if last[name] < begun[name]}


@pytest.mark.usefixtures("one_thread")
def test_a_run_makes_the_bundle_of_a_published_model(talks: Path, tmp_path: Path):
    """Once it has a checkpoint it goes on without the published model."""
    published = MAKERS["janus"](tmp_path / "published")
    config = run(published, talks, tmp_path / "run")
    lm.train(config)
    assert learned(tmp_path / "run") == set(HELD_OUT)
    expected = read_contents(as_bundle(str(published), tmp_path / "bundle"))
    assert read_contents(tmp_path / "run" / "weights").hash == expected.hash
    assert json.loads((tmp_path / "run" / "inputs.json").read_text())["weights"] == expected.hash
    shutil.copytree(published, tmp_path / "other")
    with pytest.raises(ValueError, match=r"steps from \S+published.* say weights=\S+run/weights"):
        lm.train(replace(config, weights=tmp_path / "other"))  # what the run began with stays
    shutil.move(published, tmp_path / "elsewhere")
    longer = replace(
        config, tokenizer=tmp_path / "bundle", schedule=ScheduleConfig(5, warmup_steps=1)
    )
    lm.train(longer)
    assert [step["step"] for step in metrics(tmp_path / "run")] == [0, 1, 2, 3, 4]


def test_before_its_first_checkpoint_a_run_takes_published_files_as_they_are(
    talks: Path, tmp_path: Path
):
    """So a mistake in them may be put right; what a start that was killed has left is removed."""
    published = MAKERS["janus"](tmp_path / "published")
    config = run(published, talks, tmp_path / "run")
    (tmp_path / "run" / ".new-killed").mkdir(parents=True)
    begin_published(config)
    first = read_contents(tmp_path / "run" / "weights").hash
    original, tensors = (published / SINGLE).read_bytes(), load_file(published / SINGLE)
    save_file(tensors | {"lm_head.weight": tensors["lm_head.weight"] + 1}, published / SINGLE)
    begin_published(config)
    second = read_contents(tmp_path / "run" / "weights").hash
    assert second == unimodal.load(as_bundle(str(published), tmp_path / "bundle")).hash != first
    assert {one.name for one in (tmp_path / "run").iterdir()} == {"weights"}
    # So is a bundle that is not what the run's checkpoints began with, as of a refused start.
    (tmp_path / "run" / "step_00000001").mkdir()
    (tmp_path / "run" / "inputs.json").write_text(json.dumps({"weights": first}))
    (published / SINGLE).write_bytes(original)
    begin_published(config)
    assert read_contents(tmp_path / "run" / "weights").hash == first
    (tmp_path / "run" / "step_00000001").rmdir()
    with held(tmp_path / "run", Ranks()), pytest.raises(Locked):
        begin_published(config)


def test_what_does_not_fit_a_published_model_is_refused_before_its_weights_are_read(
    talks: Path, tmp_path: Path
):
    published = MAKERS["janus"](tmp_path / "published")
    config = run(published, talks, tmp_path / "run")
    bundle = as_bundle(str(published), tmp_path / "bundle")
    emu3 = MAKERS["emu3"](tmp_path / "emu3")
    (published / SINGLE).write_bytes(b"weights that cannot be read")
    lengthy = replace(config.loader, sequence_length=10**6)
    for changes, said in (
        ({"text_ids": 300}, "text_ids 300 is 328 there"),
        ({"model": ShapeConfig()}, "model.width 256 is 32 there.*model.head next_code is unimodal"),
        ({"loader": lengthy}, "sequence_length 1000000 exceeds the model's max_positions"),
        ({"loss": LossConfig(sliced=False)}, "loss.sliced false"),
        ({"loss": LossConfig(balance=0.1)}, "loss.balance 0.1: the model has no experts"),
        ({"tower": TowerConfig("efficientnet-lite0")}, "`weights` has a vision tower already"),
        ({"tokenizer": Path("default")}, "tokenizer has .* codes, and 96 there"),
        ({"weights": Path("no/model")}, "offline|hub did not give it"),
    ):
        with pytest.raises(ValueError, match=said):
            lm.train(replace(config, **changes))
        assert not (tmp_path / "run").exists(), changes
    planned, expected = (
        plan(replace(config, weights=one, tokenizer=emu3), 1, 80.0) for one in (published, bundle)
    )
    assert planned.parameters == expected.parameters and planned.shape == expected.shape
    raw = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps(raw | {"model_type": "qwen3"}))
    with pytest.raises(ValueError, match=f"'qwen3' .*`unimodal grow {published} --output.*: mit"):
        lm.train(config)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_two_ranks_of_zero_3_begin_with_a_published_model(talks: Path, tmp_path: Path, pair: Pair):
    published = MAKERS["janus"](tmp_path / "published")
    zero = EngineConfig(deepspeed=ROOT / "configs" / "zero3.json", timeout_s=100)
    one_step = ScheduleConfig(1, warmup_steps=0)
    config = replace(run(published, talks, tmp_path / "two", engine=zero), schedule=one_step)
    save(config, tmp_path / "lm.yaml")
    pair(launching.train, str(tmp_path / "lm.yaml"))
    (step,) = metrics(tmp_path / "two")
    assert step["targets_text"] > 100 and step["targets_image"] == 0  # so words alone are learned
    assert HELD_OUT[0] in learned(tmp_path / "two")
    begun = json.loads((tmp_path / "two" / "inputs.json").read_text())["weights"]
    assert begun == read_contents(tmp_path / "two" / "weights").hash
    assert unimodal.load(tmp_path / "two" / "bundle").replies == ("text", "image")

"""Training: overfitting, a golden curve, exact resumption, and stops that lose nothing."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import batch_of
from spelled import document_of
from tiny_runs import SHAPE, TINY, exact, metrics, recipe

import unimodal
from unimodal.architecture import Architecture
from unimodal.codec import ImageCodec
from unimodal.config import load, save
from unimodal.data.loader import LoaderConfig
from unimodal.data.shards import ShardWriter, find_shards
from unimodal.data.sources import SourceConfig
from unimodal.document import Document, Text
from unimodal.heads.next_code import NextCodeInputs
from unimodal.sequence import IGNORE, Batch
from unimodal.sequencer import Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.train import heldout, lm, provenance
from unimodal.train import tokenizer as image
from unimodal.train.checkpoint import found, newest
from unimodal.train.engine import Engine, NotFinite
from unimodal.train.learner import LanguageLearner, Learner
from unimodal.train.loop import prepare
from unimodal.train.objectives import LossConfig, language
from unimodal.train.optimizer import OptimizerConfig, build, orthogonalised
from unimodal.train.run import LmRun
from unimodal.train.schedule import Rate, ScheduleConfig
from unimodal.transformer import Transformer, TransformerConfig
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary

pytestmark = pytest.mark.usefixtures("one_thread")
GOLDEN = Path(__file__).parents[1] / "golden" / "lm_losses.json"


def test_golden_losses(tmp_path: Path, shards: Path, tokenizer: Path) -> None:
    lm.train(recipe(tmp_path / "run", shards, tokenizer, 50))
    losses = [m["loss"] for m in metrics(tmp_path / "run")]
    if os.environ.get("UNIMODAL_WRITE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(losses))
    np.testing.assert_allclose(losses, json.loads(GOLDEN.read_text()), rtol=5e-3)
    assert losses[-1] < 0.8 * losses[0]


def test_held_out_losses_stand_beside_the_unigram_entropy(
    tmp_path: Path, shards: Path, tokenizer: Path
) -> None:
    """Of a model that predicts every id alike the loss is log V; entropies are counted by hand."""
    image = ImageTokenizer.load(tokenizer)
    text = TextTokenizer.train(["a red circle"], 300)
    vocabulary = Vocabulary.new(text.num_ids, image.num_codes)
    sequencer = Sequencer(vocabulary, text, image.hash, NextCodeInputs())
    config = heldout.HeldOutConfig({"scenes": SourceConfig(str(shards))}, rows=5)
    settings = replace(LoaderConfig(), window_rows=8, caption_dropout=0.9)
    measured = heldout.HeldOut(config, sequencer, ImageCodec(image), settings)
    model = UnifiedModel(SHAPE.of(vocabulary, ()))
    torch.nn.init.zeros_(model.model.embed_tokens.weight)

    def objective(batch: Batch) -> dict[str, float]:
        return language(model, batch, LossConfig()).reports

    found = measured(objective)
    uniform = {"text": vocabulary.num_words, "image": image.num_codes}
    for modality, size in uniform.items():
        assert found[f"held_out.scenes.{modality}"] == pytest.approx(math.log(size), abs=1e-5)
        counts: Counter[int] = Counter()
        for batch in measured.batches["scenes"]:
            for label, weight in zip(
                batch.labels[0].tolist(), batch.weights[0].tolist(), strict=True
            ):
                if label >= 0 and vocabulary.is_code(label) == (modality == "image"):
                    counts[label] += weight
        total = sum(counts.values())
        entropy = -sum(n / total * math.log(n / total) for n in counts.values())
        assert found[f"held_out.scenes.{modality}_unigram"] == pytest.approx(entropy, rel=1e-6)
    null = vocabulary.special("null")
    assert not any((batch.ids == null).any() for batch in measured.batches["scenes"])


WORDS = [
    "A na\u00efve caf\u00e9.\n",
    "\u65e5\u672c\u8a9e and \U0001f600",
    "the end of the line " * 90,
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three plain texts, the last one longer than a row, and a conversation without an image."""
    directory = tmp_path_factory.mktemp("texts")
    talk = (Text("not learned", "user", 0.0), Text("learned", "assistant", 1.0))
    with ShardWriter(directory) as writer:
        for number, parts in enumerate([*((Text(text),) for text in WORDS), talk]):
            writer.write(f"{number}", Document(parts))
    return directory


def test_bits_per_byte_of_plain_text(texts: Path, shards: Path, tokenizer: Path) -> None:
    """A model that predicts every id alike takes log2 V bits for each id of each text."""
    image = ImageTokenizer.load(tokenizer)
    text = TextTokenizer.train(WORDS, 300)
    vocabulary = Vocabulary.new(text.num_ids, image.num_codes)
    sequencer = Sequencer(vocabulary, text, image.hash, NextCodeInputs())
    sources = {
        "texts": SourceConfig(str(texts), text_weight=0.5),
        "scenes": SourceConfig(str(shards)),
    }
    settings = replace(LoaderConfig(), sequence_length=256, window_rows=8)
    config = heldout.HeldOutConfig(sources, rows=4)
    measured = heldout.HeldOut(config, sequencer, ImageCodec(image), settings)
    model = UnifiedModel(SHAPE.of(vocabulary, ()))
    torch.nn.init.zeros_(model.model.embed_tokens.weight)

    def objective(batch: Batch) -> dict[str, float]:
        config = LossConfig(text=0.3, z=1e-3)
        return language(model, batch, config).reports

    found = measured(objective)
    assert "held_out.scenes.text" in found and "held_out.scenes.bits_per_byte" not in found
    ids, text_bytes = [], 0
    for batch in measured.batches["texts"]:
        labels = batch.labels[batch.labels >= 0].tolist()
        ids += [label for label in labels if label < text.num_ids]
        for doc in batch.doc.unique().tolist():
            inside = batch.ids[0][batch.doc[0] == doc].tolist()
            if doc >= 0:
                parts = document_of(sequencer.layout, inside).parts
                text_bytes += sum(len(p.text.encode()) for p in parts if p.role != "user")
    expected = math.log2(vocabulary.num_words) * len(ids) / text_bytes
    assert found["held_out.texts.bits_per_byte"] == pytest.approx(expected, rel=1e-6)
    assert measured.plain["texts"].num_bytes == text_bytes > 300


def test_a_run_tells_what_it_did_to_text(
    tmp_path: Path, texts: Path, shards: Path, tokenizer: Path, capsys
) -> None:
    first = lm.train(recipe(tmp_path / "first", shards, tokenizer, 2))
    held_out = heldout.HeldOutConfig({"texts": SourceConfig(str(texts))}, rows=2)
    config = replace(recipe(tmp_path / "run", shards, tokenizer, 3), held_out=held_out)
    lm.train(replace(config, weights=first, optimizer=OptimizerConfig(lr=1e-12)))
    name = "held_out.texts.bits_per_byte"
    before = json.loads((tmp_path / "run" / "before.json").read_text())[name]
    after = metrics(tmp_path / "run")[-1][name]
    assert 0 < before == pytest.approx(after, rel=1e-5)
    assert f"{name} {before:.4f} -> {after:.4f}\n" in capsys.readouterr().err


def test_a_run_measures_held_out_data_as_it_goes(
    tmp_path: Path, shards: Path, tokenizer: Path
) -> None:
    config = recipe(tmp_path / "run", shards, tokenizer, 5)
    source = SourceConfig(str(shards))
    parts = {
        "learned": replace(source, split=(0.0, 0.8)),
        "other": replace(source, split=(0.8, 1.0)),
    }
    held_out = heldout.HeldOutConfig({"other": parts["other"]}, rows=2, every_steps=2)
    lm.train(replace(config, sources={"learned": parts["learned"]}, held_out=held_out))
    logged = [m.get("held_out.other.image") for m in metrics(tmp_path / "run")]
    assert [value is not None for value in logged] == [False, True, False, True, True]
    assert logged[-1] < logged[1]


def test_resumed_run_is_the_same_run(tmp_path: Path, shards: Path, tokenizer: Path) -> None:
    whole = recipe(tmp_path / "whole", shards, tokenizer, 12)
    lm.train(whole)
    cut = recipe(tmp_path / "cut", shards, tokenizer, 5)
    lm.train(cut)
    os.rename(tmp_path / "cut", tmp_path / "moved")
    with (tmp_path / "moved" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # cut off, as by a full disk
    lm.train(replace(cut, output=tmp_path / "moved", schedule=whole.schedule))
    assert exact(tmp_path / "moved") == exact(tmp_path / "whole")
    runs = [tmp_path / "moved", tmp_path / "whole"]
    (name,) = [path.name for path in found(runs[0])[-1].glob("rank_*")]
    weights = [(found(run)[-1] / name).read_bytes() for run in runs]
    assert weights[0] == weights[1]


def test_a_restored_state_lies_where_the_parameters_do(
    tmp_path: Path, shards: Path, tokenizer: Path
) -> None:
    """Its count of steps too, which fused AdamW wants on a GPU; `meta` is a device that is here."""
    bundle = lm.train(recipe(tmp_path / "run", shards, tokenizer, 1))
    model = unimodal.load(bundle).transformer.to("meta").requires_grad_(True)
    learner = LanguageLearner(model, LossConfig(), ["scenes"])
    adam = torch.optim.AdamW(model.parameters())
    last = newest(tmp_path / "run")
    assert last is not None
    Engine(learner, [adam], ScheduleConfig(2), 1.0).restore(last)
    kept = [state for state in adam.state.values() if "exp_avg" in state]
    assert len(kept) > 2
    assert {one.device.type for state in kept for one in state.values()} == {"meta"}


def test_worker_processes_change_nothing(tmp_path: Path, shards: Path, tokenizer: Path) -> None:
    for workers in (0, 2):
        lm.train(recipe(tmp_path / str(workers), shards, tokenizer, 3, data_workers=workers))
    assert exact(tmp_path / "0") == exact(tmp_path / "2")


def test_the_bundle_of_a_run_loads_and_names_its_provenance(
    tmp_path: Path, shards: Path, tokenizer: Path
) -> None:
    model = unimodal.load(lm.train(recipe(tmp_path / "run", shards, tokenizer, 2)))
    assert model.image_tokenizer.hash == ImageTokenizer.load(tokenizer).hash
    assert model.card["hardware"] in ("cpu", "gpu") and model.card["documents"] == 60


def test_a_run_begins_with_the_weights_of_a_bundle(
    tmp_path: Path, shards: Path, tokenizer: Path
) -> None:
    first = lm.train(recipe(tmp_path / "first", shards, tokenizer, 30))
    config = recipe(tmp_path / "second", shards, tokenizer, 1)
    second = lm.train(replace(config, weights=first))
    begin, end = metrics(tmp_path / "first")[0], metrics(tmp_path / "first")[-1]
    assert begin["loss"] - metrics(tmp_path / "second")[0]["loss"] > 0.5 * (
        begin["loss"] - end["loss"]
    )
    card = unimodal.load(second).card
    assert card["began_from"]["config"]["schedule"]["num_steps"] == 30
    assert card["hours"] >= card["began_from"]["hours"]
    other = replace(config, weights=first, text_ids=400, model=replace(SHAPE, qk_norm=False))
    with pytest.raises(ValueError, match="qk_norm False is True there; text_ids 400 is 300 there"):
        lm.train(replace(other, output=tmp_path / "third"))
    assert not (tmp_path / "third").exists()


def test_a_card_counts_in_the_data_of_all_before(tmp_path: Path) -> None:
    (tmp_path / "scenes.json").write_text('{"seed": 3}')
    config = recipe(tmp_path, tmp_path, tmp_path, 1)
    before = {"data_seeds": [1, 5], "hours": 2.0, "scores": {}}
    (tmp_path / "card.json").write_text(json.dumps(before))
    found = provenance.card(config, "cpu", [tmp_path], provenance.read(tmp_path))
    assert found["data_seeds"] == [1, 3, 5] and found["hours"] == 2.0
    assert found["began_from"] == {"data_seeds": [1, 5], "hours": 2.0}
    assert not {"output", "tokenizer", "weights"} & set(found["config"])
    assert "shards" not in found["config"]["sources"]["scenes"]


def test_a_full_disk_stops_the_run_and_keeps_its_checkpoints(
    tmp_path: Path, shards: Path, tokenizer: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(disk)])
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")

    def fill() -> None:
        while len(found(disk / "run")) < 2:
            time.sleep(0.01)
        with suppress(OSError), (disk / "filler").open("wb") as file:
            while True:
                file.write(bytes(1 << 12))
                file.flush()

    try:
        config = recipe(disk / "run", shards, tokenizer, 60, save_every_steps=1, keep_checkpoints=9)
        with ThreadPoolExecutor(1) as thread:
            thread.submit(fill)
            with pytest.raises(OSError, match="earlier ones are whole|No space left"):
                lm.train(config)
        whole = found(disk / "run")
        assert len(whole) >= 2 and not list((disk / "run").glob(".new*"))
        filler = disk / "filler"
        os.truncate(filler, filler.stat().st_size - 200_000)
        with pytest.raises(OSError, match="the run needs .* GB more, each checkpoint of all ranks"):
            lm.train(config)
        filler.unlink()
        steps = int(whole[-1].name.removeprefix("step_"))
        lm.train(replace(config, schedule=ScheduleConfig(steps + 1, 1)))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_another_config_in_the_same_directory_is_refused(
    tmp_path: Path, shards: Path, tokenizer: Path
) -> None:
    config = recipe(tmp_path / "run", shards, tokenizer, 1)
    lm.train(config)
    with pytest.raises(ValueError, match="another seed, model"):
        lm.train(replace(config, seed=1, model=replace(SHAPE, width=64)))


def test_a_run_without_a_step_may_be_put_right(
    tmp_path: Path, shards: Path, tokenizer: Path, monkeypatch
) -> None:
    config = recipe(tmp_path / "run", shards, tokenizer, 1)
    idle = {"scenes": SourceConfig(str(shards), text_weight=0.0, image_weight=0.0)}
    wrong = replace(config, sources=idle, text_ids=320)
    monkeypatch.setattr(provenance, "commit", lambda: "a")
    with pytest.raises(ValueError, match="scenes"):
        lm.train(wrong)
    assert (tmp_path / "run" / "config.yaml").exists()
    monkeypatch.setattr(provenance, "commit", lambda: "b")
    model = unimodal.load(lm.train(config))
    assert model.text_tokenizer.num_ids == 300 and model.card["commit"] == "b"
    with pytest.raises(ValueError, match="another model"):
        lm.train(replace(config, model=replace(SHAPE, qk_norm=False)))


def test_another_directorys_files_stay(tmp_path: Path, shards: Path, tokenizer: Path) -> None:
    (tmp_path / "text.json").write_text("mine")  # as when a bundle is named as the output
    prepare(recipe(tmp_path, shards, tokenizer, 1), tmp_path, {})
    assert (tmp_path / "text.json").read_text() == "mine"


def test_other_shards_in_the_same_directory_are_refused(
    tmp_path: Path, shards: Path, tokenizer: Path
) -> None:
    mine = tmp_path / "shards"
    shutil.copytree(shards, mine)
    config = recipe(tmp_path / "run", mine, tokenizer, 1)
    lm.train(config)
    find_shards(mine)[1].unlink()
    with pytest.raises(ValueError, match="shards of scenes: not what .*run began with; put"):
        lm.train(replace(config, schedule=ScheduleConfig(2)))


def test_another_tokenizer_in_the_same_place_is_refused(
    tmp_path: Path, shards: Path, tokenizer: Path
) -> None:
    mine = tmp_path / "tokenizer"
    shutil.copytree(tokenizer, mine)
    config = recipe(tmp_path / "run", shards, mine, 2)
    lm.train(config)
    with pytest.raises(ValueError, match="num_steps 1: .* has taken 2 steps"):
        lm.train(replace(config, schedule=ScheduleConfig(1, 0)))
    ImageTokenizer(TINY, seed=1).save(mine)
    with pytest.raises(ValueError, match="tokenizer: not what .*run began with"):
        lm.train(replace(config, schedule=ScheduleConfig(3)))


def test_a_run_names_every_commit_that_made_it(tmp_path: Path, monkeypatch) -> None:
    for name in ("a", "b+", "b+", None, "c"):
        monkeypatch.setattr(provenance, "commit", lambda name=name: name)
        provenance.begin(tmp_path)
    assert provenance.commits(tmp_path) == ["a", "b+", "c"]


def test_one_batch_can_be_overfitted() -> None:
    rng = np.random.default_rng(0)
    vocabulary = Vocabulary.new(300, 64)
    shape = TransformerConfig(vocabulary.size, 64, 2, 2, 2, 32, 128)
    model = UnifiedModel(Architecture(shape, vocabulary))
    ids = torch.from_numpy(rng.integers(0, 300, (2, 64)))
    ids[:, ::2] = torch.from_numpy(vocabulary.code_to_id(rng.integers(0, 64, (2, 32))))
    labels = torch.cat([ids[:, 1:], torch.full((len(ids), 1), IGNORE)], 1)
    batch = batch_of(vocabulary, ids, labels)
    config = OptimizerConfig(lr=3e-3, muon_lr=1e-2)
    optimizers = build(model, config, "model.layers.")
    learner = LanguageLearner(model, LossConfig(), ())
    engine = Engine(learner, optimizers, ScheduleConfig(60, 5), config.clip)
    for step in range(60):
        reports, _ = engine.step(step, [batch], learner.norms(batch))
    assert reports["loss_text"] < 0.05 and reports["loss_image"] < 0.05


class Odd(Learner[torch.Tensor]):
    """A model whose loss, or whose gradient, is not finite."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.model, self.outside, self.where = torch.nn.Linear(2, 1), [], where

    def forward(
        self, micro_batch: torch.Tensor, norms: dict[str, float]
    ) -> dict[str, torch.Tensor]:
        out = self.model(micro_batch).sum()
        # d sqrt(0) is infinite, its value 0
        loss = out * math.inf if self.where == "loss" else (out - out).sqrt()
        return {"total": loss, "loss": loss}


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(where: str) -> None:
    config, learner = OptimizerConfig(), Odd(where)
    engine = Engine(learner, build(learner.model, config), ScheduleConfig(10), config.clip)
    before = learner.model.weight.detach().clone()
    with pytest.raises(NotFinite, match=f"the {where}"):
        engine.step(3, [torch.ones(1, 2)], {})
    assert torch.equal(learner.model.weight, before)


def test_schedule_rises_stays_and_falls_to_almost_nothing() -> None:
    schedule = ScheduleConfig(10, warmup_steps=3, decay_steps=4)
    assert [round(schedule.factor(step), 2) for step in range(10)] == [
        0.25,
        0.5,
        0.75,
        1,
        1,
        1,
        0.8,
        0.6,
        0.4,
        0.2,
    ]
    assert ScheduleConfig(5, 4, 4).problems() == [
        "warmup_steps 4 and decay_steps 4 do not fit in num_steps 5"
    ]


def test_stages_scale_the_learning_rate() -> None:
    stages = (Rate(4, 0.5), Rate(6, 2.0))
    plain, staged = (ScheduleConfig(10, 3, 4, stages=given) for given in ((), stages))
    factors = [1, 1, 1, 1, 0.5, 0.5, 2, 2, 2, 2]
    assert [staged.factor(step) for step in range(10)] == [
        plain.factor(step) * factor for step, factor in enumerate(factors)
    ]
    assert Rate(0, 0.0).problems() == ["from_step 0: at least 1", "lr 0.0: above 0"]
    for wrong in ((Rate(6, 1.0), Rate(4, 1.0)), (Rate(4, 1.0), Rate(4, 2.0)), (Rate(10, 1.0),)):
        (problem,) = ScheduleConfig(10, stages=wrong, warmup_steps=3).problems()
        assert problem.endswith("rising, and below num_steps 10")


def test_a_run_takes_its_stages_rates(tmp_path: Path, shards: Path, tokenizer: Path) -> None:
    config = recipe(tmp_path / "run", shards, tokenizer, 4)
    save(
        replace(config, schedule=ScheduleConfig(4, 0, stages=(Rate(2, 0.25),))),
        tmp_path / "lm.yaml",
    )
    lm.train(load(LmRun, tmp_path / "lm.yaml"))
    assert [m["lr_factor"] for m in metrics(tmp_path / "run")] == [1, 1, 0.25, 0.25]


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrices = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(0))
    for matrix in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonalised(matrix))
        assert 0.3 < values.min() and values.max() < 1.3


def test_learning_rates_of_groups() -> None:
    model = Transformer(TransformerConfig(50, 16, 1, 2, 2, 8, 32))
    adam, muon = build(
        model,
        OptimizerConfig(lr=1.0, lr_scale={"model.": 0.5, "model.embed": 3.0}, muon_lr=0.1),
        "model.layers.",
    )
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    rates = {name_of[p]: group["lr"] for group in adam.param_groups for p in group["params"]}
    assert rates["model.embed_tokens.weight"] == 3.0 and rates["model.norm.weight"] == 0.5
    assert len(muon.param_groups[0]["params"]) == 7
    with pytest.raises(ValueError, match="no parameter's name begins so"):
        build(model, OptimizerConfig(lr_scale={"modle.": 2.0}))


def test_tokenizer_learns_and_resumes(tmp_path: Path, shards: Path) -> None:
    config = image.TokenizerRun(
        output=tmp_path / "whole",
        shards=str(shards),
        schedule=ScheduleConfig(40, warmup_steps=2),
        batch_images=4,
        model=TINY,
        optimizer=OptimizerConfig(lr=3e-3),
    )
    with pytest.raises(ValueError, match="92 images do not fill a batch of 100"):
        image.train(replace(config, batch_images=100))
    finished = image.train(config)
    cut = replace(config, output=tmp_path / "cut", schedule=ScheduleConfig(15, warmup_steps=2))
    image.train(cut)
    again = image.train(replace(cut, schedule=config.schedule))
    assert ImageTokenizer.load(again).hash == ImageTokenizer.load(finished).hash
    losses = [m["loss"] for m in metrics(tmp_path / "whole")]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_has_a_checkpoint_and_goes_on(
    number: signal.Signals, tmp_path: Path, shards: Path, tokenizer: Path
) -> None:
    save(recipe(tmp_path / "run", shards, tokenizer, 100_000), tmp_path / "lm.yaml")
    command = [sys.executable, "-m", "unimodal", "train", "lm", str(tmp_path / "lm.yaml")]
    log = tmp_path / "run" / "metrics.jsonl"
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 90
    while time.time() < deadline and not (log.exists() and log.read_text().count("\n") > 3):
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert "the same command goes on from there" in errors and process.returncode == 75
    (checkpoint,) = found(tmp_path / "run")
    assert int(checkpoint.name.removeprefix("step_")) == len(metrics(tmp_path / "run")) > 3
    assert find_shards(shards)

"""Training: overfitting, a golden curve, exact resumption, and stops that lose nothing."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import batch_of
from tiny_runs import SHAPE, TINY, exact, metrics, recipe

import unimodal
from unimodal.architecture import Architecture
from unimodal.config import save
from unimodal.data.shards import find_shards
from unimodal.data.sources import SourceConfig
from unimodal.sequence import IGNORE
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.train import lm, provenance
from unimodal.train import tokenizer as image
from unimodal.train.checkpoint import found, newest
from unimodal.train.engine import Engine, NotFinite
from unimodal.train.learner import LanguageLearner, Learner
from unimodal.train.loop import prepare
from unimodal.train.objectives import LossConfig
from unimodal.train.optimizer import OptimizerConfig, build, orthogonalised
from unimodal.train.schedule import ScheduleConfig
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
    with pytest.raises(ValueError, match="qk_norm false is true there; text_ids 400 is 300 there"):
        lm.train(replace(other, output=tmp_path / "third"))
    assert not (tmp_path / "third").exists()


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

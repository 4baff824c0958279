"""A run with a vision tower: trained or frozen, resumed, kept in a bundle, refused."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import rl_cases
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from tiny_runs import metrics, recipe
from tower_runs import both_model as both_model
from tower_runs import both_run as both_run
from tower_runs import either as either
from tower_runs import given, network
from tower_runs import model as model
from tower_runs import run as run
from tower_runs import tower as tower
from towers import MEAN, STD

from unimodal.bundle import load
from unimodal.command import main
from unimodal.data.sources import SourceConfig
from unimodal.data.tar import ShardError
from unimodal.document import Document, Text
from unimodal.hub.export import export
from unimodal.model import Model
from unimodal.tower import NETWORK, PROJECTOR
from unimodal.train import lm
from unimodal.train.checkpoint import EMA, newest
from unimodal.train.given import read_given
from unimodal.train.lora import LoraConfig
from unimodal.train.plan.plan import plan
from unimodal.train.ranks import Ranks
from unimodal.train.rl.train import read_given as read_rl
from unimodal.train.rl.train import train_on
from unimodal.train.run import LmRun
from unimodal.train.tower import TowerConfig

pytestmark = pytest.mark.usefixtures("one_thread")


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

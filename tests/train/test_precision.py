"""The precision of a start: resolved by what machines have, noted, exact at equal precision."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import exact, metrics, recipe

import unimodal
from unimodal import config as configuration
from unimodal.products import Linear
from unimodal.train import lm, precision
from unimodal.train.learner import LanguageLearner
from unimodal.train.ranks import Ranks
from unimodal.train.run import LmRun

pytestmark = pytest.mark.usefixtures("one_thread")
needs_bf16 = pytest.mark.skipif(
    not precision.has_bf16(), reason="this processor has no bfloat16 arithmetic"
)


def auto(output: Path, shards: Path, tokenizer: Path, num_steps: int) -> LmRun:
    return replace(recipe(output, shards, tokenizer, num_steps), precision="auto")


def test_the_processors_own_list_is_what_decides() -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU decides")
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    listed = set(flags[1].split()) if flags else set()
    assert precision.has_bf16() == bool(listed & {"avx512_bf16", "amx_bf16"})


class Two(Ranks):
    """Two ranks, the other of which says what it is given."""

    def __init__(self, other: str) -> None:
        super().__init__(0, 1)
        self.other = other

    def all_gather(self, text: str) -> list[str]:
        return [text, self.other]


@pytest.mark.parametrize(
    ("here", "there", "found"),
    [(True, "bf16", "bf16"), (True, "fp32", "fp32"), (False, "bf16", "fp32")],
)
def test_all_machines_of_a_start_must_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: bool, there: str, found: str
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: here)
    config = auto(tmp_path, tmp_path, tmp_path, 1)
    assert LmRun.__dataclass_fields__["precision"].default == "auto"
    assert precision.resolved(config, Two(there)).precision == found
    for said in ("fp32", "bf16"):
        given = replace(config, precision=said)
        assert precision.resolved(given, Two(there)) is given


def test_bf16_is_refused_where_it_would_be_done_in_software(
    tmp_path: Path, shards: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    config = replace(recipe(tmp_path / "run", shards, tokenizer, 1), precision="bf16")
    with pytest.raises(ValueError, match="precision bf16: no bfloat16 arithmetic here.*leave it"):
        lm.train(config)
    assert not config.output.exists()


@pytest.mark.parametrize("has", [False, pytest.param(True, marks=needs_bf16)])
def test_a_run_takes_what_it_finds_and_says_so(
    tmp_path: Path, shards: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    seen = []
    forward = LanguageLearner.forward

    def noted(self, *given):  # type: ignore[no-untyped-def]
        seen.append(self.autocast)
        return forward(self, *given)

    monkeypatch.setattr(LanguageLearner, "forward", noted)
    monkeypatch.setattr(precision, "has_bf16", lambda: has)
    bundle = lm.train(auto(tmp_path / "run", shards, tokenizer, 1))
    found = "bf16" if has else "fp32"
    assert set(seen) == {has}
    assert configuration.load(LmRun, tmp_path / "run" / "config.yaml").precision == found
    model = unimodal.load(bundle)
    assert model.card["config"]["precision"] == found
    assert {p.dtype for p in model.transformer.parameters()} == {torch.float32}, "chat is fp32"
    assert not (tmp_path / "run" / "history.jsonl").exists()


@needs_bf16
def test_a_change_at_a_resume_is_written_to_the_history(
    tmp_path: Path, shards: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    config = auto(tmp_path / "run", shards, tokenizer, 2)
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    lm.train(config)
    before = exact(tmp_path / "run")
    monkeypatch.undo()
    longer = replace(config, schedule=replace(config.schedule, num_steps=4))
    lm.train(longer)
    lines = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    changes = {line["key"]: line for line in map(json.loads, lines)}
    assert changes["precision"] == {"step": 2, "key": "precision", "old": "fp32", "new": "bf16"}
    assert "precision fp32 -> bf16 from step 2 on" in capsys.readouterr().err
    assert exact(tmp_path / "run")[:2] == before and len(metrics(tmp_path / "run")) == 4


@needs_bf16
def test_at_equal_precision_a_resumed_run_is_the_same_bits(
    tmp_path: Path, shards: Path, tokenizer: Path
) -> None:
    whole = replace(recipe(tmp_path / "whole", shards, tokenizer, 6), precision="bf16")
    lm.train(whole)
    cut = replace(whole, output=tmp_path / "cut")
    lm.train(replace(cut, schedule=replace(whole.schedule, num_steps=3)))
    lm.train(replace(cut, precision="auto"))
    assert exact(tmp_path / "cut") == exact(tmp_path / "whole")
    history = (tmp_path / "cut" / "history.jsonl").read_text()
    assert "schedule.num_steps" in history and "precision" not in history
    single = replace(whole, output=tmp_path / "single", precision="fp32")
    lm.train(single)
    assert exact(tmp_path / "single") != exact(tmp_path / "whole")
    for one, other in zip(metrics(single.output), metrics(whole.output), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.02)


def test_fp8_without_a_gpu_is_refused(shards: Path, tokenizer: Path, tmp_path: Path):
    if precision.has_fp8():
        pytest.skip("there is a GPU with float8 arithmetic")
    config = replace(recipe(tmp_path / "run", shards, tokenizer, 1), precision="fp8")
    with pytest.raises(ValueError, match="precision fp8: needs a GPU with float8 arithmetic"):
        lm.train(config)


def test_float8_is_near_float32():
    """Emulated: rounded to float8, multiplied in float32; parameters and their names stay."""
    pytest.importorskip("torchao", reason="not installed: the extra `gpu`")
    torch.manual_seed(0)
    plain = torch.nn.Sequential(Linear(64, 48), Linear(48, 20))
    names = dict(plain.named_parameters())
    x_BD = torch.randn(16, 64)
    expected = plain(x_BD)
    expected.square().sum().backward()
    gradient = plain[0].weight.grad.clone()
    plain.zero_grad()
    precision.in_float8(plain, emulate=True)
    assert type(plain[0]).__name__ == "Float8Linear" and type(plain[1]) is Linear
    assert all(names[name] is one for name, one in plain.named_parameters())
    found = plain(x_BD)
    found.square().sum().backward()
    assert not torch.equal(found, expected)
    for ours, other in ((found, expected), (plain[0].weight.grad, gradient)):
        assert (ours - other).norm() < 0.1 * other.norm()

"""A batch that gives no finite number is skipped by its digest, and the run goes on."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from stopped_runs import ALL
from stopped_runs import run as run
from stopped_runs import stopped as stopped
from stopped_runs import whole as whole
from tiny_runs import exact, metrics
from train_files import history

from unimodal.config import load, save
from unimodal.train import lm
from unimodal.train.engine import NotFinite
from unimodal.train.learner import TOTAL, LanguageLearner
from unimodal.train.loop import LoopConfig
from unimodal.train.run import LmRun
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.skipping import batch_digest

pytestmark = pytest.mark.usefixtures("one_thread")


class Poisoned(LanguageLearner):
    """The loss of one batch is infinite, by its text."""

    digest = ""

    def forward(self, micro_batch, norms=None):
        found = super().forward(micro_batch, norms)
        if batch_digest(self.digests(micro_batch)) == self.digest:
            found[TOTAL] = found[TOTAL] * float("inf")
            found["loss"] = found["loss"] * float("inf")
        return found


def test_a_batch_is_skipped_by_the_digest_that_the_stop_prints(
    run: LmRun, whole: list[tuple], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
):
    class Seen(LanguageLearner):
        digests_of: list[str] = []

        def norms(self, batch):
            self.digests_of.append(batch_digest(self.digests(batch)))
            return super().norms(batch)

    monkeypatch.setattr(lm, "LanguageLearner", Seen)
    lm.train(replace(run, output=tmp_path / "seen", schedule=ScheduleConfig(ALL + 1, 1)))
    monkeypatch.setattr(lm, "LanguageLearner", Poisoned)
    monkeypatch.setattr(Poisoned, "digest", Seen.digests_of[4])
    with pytest.raises(NotFinite, match="the loss of step 4 is inf") as stop:
        lm.train(run)
    (setting,) = re.findall(r"the same command with '(.*)'", str(stop.value))
    assert Seen.digests_of[4] in setting and "its rows: " in str(stop.value)
    save(run, tmp_path / "lm.yaml")
    config = load(LmRun, tmp_path / "lm.yaml", [setting])
    lm.train(config)
    assert exact(run.output)[:4] == whole[:4] and len(metrics(run.output)) == ALL
    assert (4, "batch", Seen.digests_of[4], None) in history(run.output)
    assert f"the batch {Seen.digests_of[4]} is skipped at step 4" in capsys.readouterr().err
    seen = exact(tmp_path / "seen")
    # The batch of step 5 came at step 4: the weights were the same, so its loss would be too, had
    # it been there.
    assert exact(run.output)[4][1] != seen[4][1]


def test_a_digest_does_not_depend_on_the_ranks():
    assert batch_digest(["b", "a", "c"]) == batch_digest(["c", "b", "a"]) != batch_digest(["a"])
    assert LoopConfig(skip_batches=("xyz",)).problems() == ["skip_batches 'xyz': 16 hex digits"]

"""The benchmarks of training run on tiny inputs, and their checks see what is not exact."""

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from benchmarks import gpus, heads, image_heads, steps
from benchmarks.steps import QUICK, packed, theirs, twin

from unimodal import cross_entropy
from unimodal.sequence import IGNORE, IMAGE, PADDING, span_mask
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary

SCALE = replace(QUICK, sequence_length=256, loss_positions=64, checked_positions=64)


def test_lines_of_a_step() -> None:
    sliced, whole = steps.lines(SCALE)
    assert sliced.met is not None and whole.met is None
    assert not sliced.wrong and "loss equal to" in sliced.check


def test_another_model_is_seen() -> None:
    batch = packed(SCALE.vocabulary, 1, 128)
    model = UnifiedModel(SCALE.shape)
    peer = twin(model)
    with torch.no_grad():
        peer.model.norm.weight[0] += 0.1
    mine, other = steps.ours(model, batch, False), theirs(peer, batch)()
    of_loss, of_gradients = steps.difference(model, mine, peer, other)
    assert of_loss > steps.SAME and of_gradients > 10 * steps.SAME


def test_rows_are_full_and_codes_their_share() -> None:
    batch = packed(Vocabulary.new(1000, 1000), 32, 1024)
    learned = (batch.labels != IGNORE).sum()
    codes = (batch.modality == IMAGE).sum()
    assert (batch.doc != PADDING).all() and codes / learned == pytest.approx(0.6, abs=0.02)


def test_lines_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cross_entropy.CHUNK_LOGITS, "cpu", 500)
    time, memory = heads.lines(SCALE)
    assert not time.wrong and memory.met, "a chunk is small beside 64 x 775 logits, thrice"
    monkeypatch.setattr(heads, "SAME", 0)
    assert heads.lines(SCALE)[0].wrong


def test_lines_of_image_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check sees a mask that is not the head's."""
    scale = replace(image_heads.QUICK, num_layers=1, sequence_length=256)
    found = image_heads.lines(scale)
    for head, line in zip(image_heads.HEADS, found, strict=True):
        assert not line.wrong and line.met is not None and line.what.endswith(head)
    causal = lambda doc, block, private: span_mask(doc, 0 * block, private)  # noqa: E731
    monkeypatch.setattr(image_heads, "span_mask", causal)
    assert all(line.wrong for line in image_heads.lines(scale))


def test_without_a_gpu_lines_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert all(line.ours == "needs a GPU" and line.met is None for line in gpus.lines(SCALE))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")
def test_the_line_of_zero_3_at_one_rank() -> None:
    """In a process of its own, which it makes a rank."""
    script = Path(__file__).parents[1] / "benchmarks" / "training.py"
    command = [sys.executable, str(script), "--only", "zero", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "step under ZeRO-3 at one rank" in done.stdout

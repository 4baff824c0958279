"""From another family's language model to one that reads and draws, and back to Hugging Face."""

from dataclasses import replace
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import torch
from checkpoints import logits
from tiny_runs import metrics, recipe
from transformers import AutoModelForCausalLM

import unimodal
from unimodal.data.sizes import ImageRule
from unimodal.data.sources import SourceConfig
from unimodal.hub.export import export
from unimodal.hub.grow import Growth, grow
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.train import lm
from unimodal.train.optimizer import OptimizerConfig

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def sources(kind: str, shards: Path) -> dict[str, SourceConfig]:
    if kind == "scenes":
        return {"scenes": SourceConfig(str(shards))}
    if not DATA.is_dir():
        pytest.skip("needs OpenStax and NLVR in shared/data beside the repository")
    return {
        "openstax": SourceConfig(str(DATA / "openstax"), split=(0.0, 0.2)),
        "nlvr": SourceConfig(str(DATA / "nlvr" / "nlvr-dev.tar"), split=(0.0, 0.1)),
    }


@pytest.mark.parametrize("kind", ["scenes", "openstax and nlvr"])
def test_a_qwen3_grows_trains_and_goes_home(
    kind: str, shards: Path, tokenizer: Path, tmp_path: Path
):
    learned = sources(kind, shards)
    checkpoints.save(tmp_path / "old", "qwen3", max_position_embeddings=512)
    image = ImageTokenizer.load(tokenizer)
    grow(tmp_path / "old", image, tmp_path / "grown", Growth(rows="codes", grid=Grid(8, 8)))
    config = recipe(tmp_path / "run", shards, tokenizer, 12)
    rule = ImageRule(target_pixels=4096, multiple=8, max_aspect_ratio=4.0)
    bundle = lm.train(
        replace(
            config,
            sources=learned,
            weights=tmp_path / "grown",
            text_ids=None,
            model=None,
            loader=replace(config.loader, sequence_length=512, batch_rows=2, images=rule),
            optimizer=OptimizerConfig(lr=1e-2),
        )
    )
    log = metrics(tmp_path / "run")
    assert np.mean([one["loss"] for one in log[-3:]]) < np.mean([one["loss"] for one in log[:3]])
    for one in learned if len(learned) > 1 else ():
        assert any(line.get(f"loss_text/{one}", 0) > 0 for line in log), one
    model = unimodal.load(bundle)
    theirs = AutoModelForCausalLM.from_pretrained(
        export(bundle, tmp_path / "hf"), dtype=torch.float32
    ).eval()
    assert type(theirs).__name__ == "Qwen3ForCausalLM"
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(0, model.vocabulary.size, (2, 100), generator=generator)
    with torch.inference_mode():
        found = logits(model.transformer, ids_BT)
        assert (found - theirs(ids_BT).logits).abs().max() <= 1e-5
        before = logits(unimodal.load(tmp_path / "grown").transformer, ids_BT)
    assert (found - before).abs().max() > 1e-2

"""A benchmark asks a published model, whose images are fitted by its authors' rule."""

from dataclasses import replace
from pathlib import Path

import published_models as made
import pytest
import vqa_files

import unimodal
from unimodal.eval.vqa.evaluation import evaluate
from unimodal.eval.vqa.pictures import Pictures
from unimodal.eval.vqa.source import Source
from unimodal.eval.vqa.tasks import task_of
from unimodal.families.fits import BucketFit
from unimodal.tokenizer.grid import Grid

MAKERS = {
    "chat": lambda at: made.save_emu3(at, made.emu3_model(131072)),
    "janus": lambda at: made.save_janus(at, made.janus_model()),
    "chameleon": lambda at: made.save_chameleon(at, made.chameleon_model()),
    "lumina": lambda at: made.save_lumina(at, made.lumina_model()),
    "liquid": lambda at: made.save_liquid(at, made.liquid_model()),
}


@pytest.mark.parametrize("name", MAKERS)
def test_pope(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = unimodal.load(MAKERS[name](tmp_path / "model"))
    if name == "lumina":
        model = replace(model, grid=Grid(2, 4), fit=BucketFit(64, 32))
    data, seen = vqa_files.pope(tmp_path / "data", subsets=("random",)), []
    pixels = Pictures.pixels

    def noted(self: Pictures, image: object):
        seen.append(pixels(self, image))
        return seen[-1]

    monkeypatch.setattr(Pictures, "pixels", noted)
    report = evaluate(model, task_of("pope"), Source(data, data), 7, batch=4)
    assert report is not None and report["scores"]["pope"]["overall"].n == 4
    assert report["recipe"]["fit"] == str(model.fit)
    sizes = {"chat": (16, 20), "janus": (24, 24), "lumina": (64, 64)}
    size = sizes.get(name, (32, 32))
    assert seen and {one.shape[:2] for one in seen} == {size}
    with pytest.raises(ValueError, match="by its authors' rule"):
        evaluate(model, task_of("pope"), Source(data, data), 7, target_pixels=64)

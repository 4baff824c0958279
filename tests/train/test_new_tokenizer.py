"""A run that begins from weights whose image tokenizer was trained further."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny_runs import TINY, metrics, recipe, write_conversations, write_tokenizer

from unimodal.bundle import load
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.quantizers.config import FsqConfig, QuantizerConfig
from unimodal.train import lm
from unimodal.train.run import LmRun


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> LmRun:
    """A finished run of a tiny model."""
    root = tmp_path_factory.mktemp("begun")
    shards = write_conversations(root / "shards", 20, 10)
    run = recipe(root / "run", shards, write_tokenizer(root / "tokenizer"), 4)
    lm.train(run)
    return run


def trained_further(folder: Path) -> Path:
    """Write the tokenizer with another first layer, so that images have other codes."""
    ImageTokenizer(TINY).save(folder)
    weights = load_file(folder / "tokenizer.safetensors")
    name = "encoder.patches.weight"
    save_file(weights | {name: 3 * weights[name]}, folder / "tokenizer.safetensors")
    return folder


def test_codes_keep_their_rows_and_learn_what_they_mean_now(begun: LmRun, tmp_path: Path) -> None:
    (tmp_path / "further").mkdir()
    further = trained_further(tmp_path / "further")
    weights = begun.output / "bundle"
    run = replace(
        begun, output=tmp_path / "run", weights=weights, tokenizer=further, text_ids=None,
        new_tokenizer=True, schedule=replace(begun.schedule, num_steps=1, warmup_steps=0),
        optimizer=replace(begun.optimizer, lr=0.0, muon_lr=0.0),
    )  # fmt: skip
    lm.train(run)
    before, after = load(weights), load(run.output / "bundle")
    assert after.image_tokenizer.hash == ImageTokenizer.load(further).hash
    assert after.image_tokenizer.hash != before.image_tokenizer.hash
    rows = before.transformer.state_dict()
    assert all(rows[name].equal(tensor) for name, tensor in after.transformer.state_dict().items())
    # The same images are other codes, which the old weights expect less.
    same = replace(
        run, output=tmp_path / "same", tokenizer=begun.tokenizer, new_tokenizer=False
    )  # fmt: skip
    lm.train(same)
    new, old = (metrics(one.output)[0]["loss_image"] for one in (run, same))
    assert new != old


@pytest.mark.parametrize(
    ("new", "whose", "said"),
    [
        (False, "further", r"tokenizer is another one there \(new_tokenizer=true keeps"),
        (True, "own", "new_tokenizer true: tokenizer is the same one there; leave it out"),
        (True, "larger", r"tokenizer has 125 codes of levels \[5, 5, 5\], and 64 .*\[4, 4, 4\]"),
    ],
)
def test_what_does_not_fit_is_refused(
    begun: LmRun, tmp_path: Path, new: bool, whose: str, said: str
) -> None:
    (tmp_path / "t").mkdir()
    tokenizer = begun.tokenizer
    if whose == "further":
        tokenizer = trained_further(tmp_path / "t")
    elif whose == "larger":
        levels = QuantizerConfig(fsq=FsqConfig((5, 5, 5)))
        ImageTokenizer(TokenizerConfig(levels, patches=TINY.patches)).save(tmp_path / "t")
        tokenizer = tmp_path / "t"
    run = replace(
        begun, output=tmp_path / "run", weights=begun.output / "bundle", tokenizer=tokenizer,
        text_ids=None, new_tokenizer=new,
    )  # fmt: skip
    with pytest.raises(ValueError, match=said):
        lm.train(run)
    assert not (tmp_path / "run" / "bundle").exists()


def test_without_weights_there_is_nothing_to_keep(begun: LmRun) -> None:
    said = "new_tokenizer: without `weights` every tokenizer is new; leave it out"
    assert said in replace(begun, new_tokenizer=True).problems()

"""Tokenizers that learn from several losses, in one process or two, with averaged weights."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizer_runs
import torch
from backbones import write_backbone
from pair import Pair
from PIL import Image as PILImage
from tiny_runs import TINY, metrics
from tokenizer_runs import captions, png, tiny_run, with_quantizer

from unimodal.config import ConfigError, load, save
from unimodal.data.sizes import ImageRule
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.autoencoders.convolutions import ConvolutionsConfig
from unimodal.tokenizer.autoencoders.queries import QueriesConfig
from unimodal.tokenizer.discriminator import AdversarialConfig
from unimodal.tokenizer.losses import TokenizerLossConfig
from unimodal.tokenizer.perceptual import PerceptualConfig
from unimodal.tokenizer.quantizers.config import FsqConfig, VqConfig
from unimodal.tokenizer.semantic import SemanticConfig
from unimodal.train import precision, tokenizer
from unimodal.train.checkpoint import EMA, Checkpoint, found
from unimodal.train.code_usage import CodeUsage
from unimodal.train.loop import LoopConfig, _bar
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.ranks import Ranks
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.tokenizer import TokenizerRun

pytestmark = pytest.mark.usefixtures("one_thread")
SAMPLES = captions(40, (64, 64))
ADVERSARIAL = AdversarialConfig(start_step=4, width=8, num_layers=2, lr=1e-3)
AVERAGED = OptimizerConfig(lr=3e-3, ema_decay=0.9)
SAVING = LoopConfig(save_every_steps=3, num_threads=1)


@pytest.fixture(scope="module")
def all_losses(tmp_path_factory: pytest.TempPathFactory) -> TokenizerLossConfig:
    vision = str(write_backbone(tmp_path_factory.mktemp("backbone")))
    return TokenizerLossConfig(
        perceptual=PerceptualConfig(0.1, vision), adversarial=ADVERSARIAL,
        semantic=SemanticConfig(0.5, vision, 16),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("stop", "kind"), [(3, "fp32"), (6, "fp32"), (6, "bf16")],
    ids=["before the adversary", "after it began", "in bfloat16"],
)  # fmt: skip
def test_all_of_it_resumes_bit_for_bit(
    all_losses, tmp_path: Path, monkeypatch, stop: int, kind: str
) -> None:
    """Two optimizers more than before, averaged weights, and the codebook of VQ."""
    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    model = with_quantizer(vq=VqConfig(num_codes=32, width=4))
    whole = tiny_run(
        tmp_path, SAMPLES, 9, model=model, loss=all_losses, optimizer=AVERAGED, loop=SAVING,
        precision=kind,
    )  # fmt: skip
    finished = tokenizer.train(whole)
    cut = replace(whole, output=tmp_path / "cut", schedule=ScheduleConfig(stop, 1))
    tokenizer.train(cut)
    again = tokenizer.train(replace(cut, schedule=whole.schedule))
    assert ImageTokenizer.load(again).hash == ImageTokenizer.load(finished).hash
    lines = [metrics(config.output) for config in (whole, cut)]
    same = lines[0][-1].keys() - {"step_s", "data_wait_s", "data_waits_s"}
    same -= {name for name in same if name.startswith("usage")}  # of the latest codes
    assert {"perceptual", "semantic", "adversarial", "discriminator"} <= same
    for one, other in zip(*lines, strict=True):
        assert {n: one.get(n) for n in same} == {n: other.get(n) for n in same}
    assert [("adversarial" in line) for line in lines[0]] == [False] * 4 + [True] * 5


def test_two_processes_learn_as_one(tmp_path: Path, pair: Pair) -> None:
    loss = TokenizerLossConfig(adversarial=replace(ADVERSARIAL, start_step=0))
    one = tiny_run(tmp_path, SAMPLES, 5, loss=loss, optimizer=AVERAGED, loop=SAVING)
    two = replace(one, output=tmp_path / "two")
    save(two, tmp_path / "two.yaml")
    pair(tokenizer_runs.train, str(tmp_path / "two.yaml"))
    alone, together = (ImageTokenizer.load(tokenizer.train(c)).state_dict() for c in (one, two))
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-5, atol=1e-5)
    for line, other in zip(metrics(one.output), metrics(two.output), strict=True):
        for name in ("loss", "absolute", "squared", "psnr_db", "adversarial", "discriminator"):
            assert other[name] == pytest.approx(line[name], rel=1e-5), (line["step"], name)
        assert other["images"] == line["images"]
    assert len(list((tmp_path / "two" / "samples").glob("*.png"))) == 2


def test_two_processes_pass_over_a_batch_that_is_bad_to_the_last_image(
    tmp_path: Path, pair: Pair
) -> None:
    """Such as that of the only image of its size, which comes fifth here."""
    cut = {"cut": {"png": png(128, 64)[:2000]}}
    one = tiny_run(tmp_path, captions(8, (64, 64)) | cut, 6, bad_share=0.5, loop=SAVING)
    two = replace(one, output=tmp_path / "two")
    save(two, tmp_path / "two.yaml")
    pair(tokenizer_runs.train, str(tmp_path / "two.yaml"))
    alone, together = (ImageTokenizer.load(tokenizer.train(c)).state_dict() for c in (one, two))
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-5, atol=1e-5)
    assert [metrics(c.output)[-1]["bad_images"] for c in (one, two)] == [8, 8]


def test_a_run_of_two_processes_goes_on_alone(tmp_path: Path, pair: Pair) -> None:
    whole = tiny_run(tmp_path, SAMPLES, 6, loop=SAVING)
    cut = replace(whole, output=tmp_path / "cut", schedule=ScheduleConfig(3, 1))
    save(cut, tmp_path / "cut.yaml")
    pair(tokenizer_runs.train, str(tmp_path / "cut.yaml"))
    alone = ImageTokenizer.load(tokenizer.train(whole)).state_dict()
    again = tokenizer.train(replace(cut, schedule=whole.schedule))
    for name, value in ImageTokenizer.load(again).state_dict().items():
        torch.testing.assert_close(value, alone[name], rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not precision.has_bf16(), reason="no bfloat16 arithmetic here")
def test_two_processes_in_bfloat16_and_then_one(tmp_path: Path, pair: Pair) -> None:
    """With averaged weights and an adversary. Sums are rounded apart, to a hundredth or so."""
    whole = tiny_run(
        tmp_path, SAMPLES, 6, loop=SAVING, optimizer=AVERAGED, precision="bf16",
        loss=TokenizerLossConfig(adversarial=replace(ADVERSARIAL, start_step=0)),
    )  # fmt: skip
    cut = replace(whole, output=tmp_path / "cut", schedule=ScheduleConfig(3, 1))
    save(cut, tmp_path / "cut.yaml")
    pair(tokenizer_runs.train, str(tmp_path / "cut.yaml"))
    alone, again = (
        torch.nn.utils.parameters_to_vector(ImageTokenizer.load(one).parameters())
        for one in (tokenizer.train(whole), tokenizer.train(replace(cut, schedule=whole.schedule)))
    )
    first = torch.nn.utils.parameters_to_vector(ImageTokenizer(whole.model).parameters())
    assert (again - alone).norm() < 0.3 * (alone - first).norm()
    losses = [[line["loss"] for line in metrics(one.output)] for one in (whole, cut)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_the_finished_tokenizer_has_the_averaged_weights(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, SAMPLES, 4, optimizer=AVERAGED)
    weights = ImageTokenizer.load(tokenizer.train(config)).state_dict()
    checkpoint = Checkpoint(found(config.output)[-1])
    for name, value in weights.items():
        assert torch.equal(value, checkpoint.whole(name, EMA))
    name = "decoder.out.weight"
    assert not torch.equal(weights[name], checkpoint.whole(name))


def test_a_sheet_shows_originals_beside_reconstructions(tmp_path: Path) -> None:
    """A large learning rate at each step: sheets change nothing of what is learned."""
    config = tiny_run(tmp_path, SAMPLES, 7, loop=SAVING, optimizer=AVERAGED)
    tokenizer.train(config)
    sheets = sorted((config.output / "samples").glob("*.png"))
    assert [one.stem for one in sheets] == [f"step_{n:08d}" for n in (3, 6, 7)]
    pages = [np.asarray(PILImage.open(one).convert("RGB")) for one in sheets]
    assert pages[0].shape == pages[1].shape and not np.array_equal(pages[0], pages[1])
    rare = replace(config, output=tmp_path / "rare", loop=LoopConfig(num_threads=1))
    tokenizer.train(rare)
    losses = [[line["loss"] for line in metrics(one.output)] for one in (config, rare)]
    assert losses[0] == losses[1]


def test_bfloat16_where_the_machine_has_it(tmp_path: Path, monkeypatch) -> None:
    config = tiny_run(tmp_path, SAMPLES, 2, precision="bf16")
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    with pytest.raises(ValueError, match="precision bf16: no bfloat16 arithmetic here"):
        tokenizer.train(config)
    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    finished = ImageTokenizer.load(tokenizer.train(config))
    assert {one.dtype for one in finished.state_dict().values()} == {torch.float32}
    plain = replace(config, output=tmp_path / "plain", precision="fp32")
    tokenizer.train(plain)
    low, full = (metrics(one.output)[0]["loss"] for one in (config, plain))
    assert low != full and low == pytest.approx(full, rel=0.02)


def test_the_same_loss_as_ever_without_settings(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, SAMPLES, 2)
    tokenizer.train(config)
    line = metrics(config.output)[-1]
    assert line["loss"] == pytest.approx(line["absolute"] + line["squared"])
    assert line["psnr_db"] == pytest.approx(10 * math.log10(4 / line["squared"]))


def test_the_step_is_shown_however_many_losses_there_are(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with _bar(Ranks()) as bar:
        task = bar.add_task("run", total=25_000, completed=0, numbers="")
        bar.update(task, completed=300, numbers="loss 0.1828 quantizer_commitment 0.001541 " * 9)
    line = capsys.readouterr().err.strip()
    assert line.startswith("run ") and " 300/25000 " in line and " loss 0.1828 " in line, line


def test_usage_is_counted_as_codes_come_and_go() -> None:
    usage, rng = CodeUsage(7, 2), np.random.default_rng(0)
    latest = np.zeros((0, 2), int)
    for _ in range(60):
        codes = rng.integers(0, rng.integers(1, 8, 2), (2, int(rng.integers(1, 9)), 2))
        usage.add(torch.from_numpy(codes))
        latest = np.concatenate([latest, codes.reshape(-1, 2)])[-usage._drawn :]
        shares, bits = zip(*(_by_hand(group, 7) for group in latest.T), strict=True)
        least = int(np.argmin(shares))
        assert usage.reports()["usage_share"] == pytest.approx(shares[least])
        assert usage.reports()["usage_entropy_bits"] == pytest.approx(bits[least])
    assert 140 <= usage._drawn < 160 and usage.is_settled


def _by_hand(codes: np.ndarray, num_codes: int) -> tuple[float, float]:
    """The share of codes that occur, and the entropy of their frequencies in bits."""
    p = [float((codes == code).mean()) for code in set(codes.tolist())]
    return len(p) / num_codes, -sum(one * math.log2(one) for one in p)


def test_usage_is_of_the_least_used_group() -> None:
    usage = CodeUsage(4, 2)
    all_N, one_N = torch.arange(80) % 4, torch.zeros(80, dtype=torch.int64)
    usage.add(torch.stack([all_N, one_N], dim=-1)[None])
    least = usage.reports()
    assert (least["usage_share"], least["usage_entropy_bits"]) == (0.25, 0.0)
    assert "75.0% are unused" in usage.problem(0.5) and usage.problem(0.25) == ""
    assert "least used of 2 groups" in usage.line()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (TokenizerConfig(convolutions=ConvolutionsConfig()), "usage_share"),
        (TokenizerConfig(queries=QueriesConfig(8, 64, 64, 8, 32, 1, 1, 4)), "usage_share"),
        (with_quantizer(fsq=FsqConfig((4, 4)), groups=2), "usage_share"),
        (with_quantizer(fsq=FsqConfig((4, 4, 4)), scales=(1, 2, 4, 8)), "usage_share"),
    ],
    ids=["convolutions", "queries", "groups", "scales"],
)
def test_every_autoencoder_trains(tmp_path: Path, model: TokenizerConfig, words: str) -> None:
    config = tiny_run(tmp_path, SAMPLES, 2, model=model, batch_images=2)
    finished = ImageTokenizer.load(tokenizer.train(config))
    codes, grid = finished.encode(torch.zeros(1, 3, 64, 64))
    assert codes.shape == (1, grid.size, finished.num_groups)
    assert words in metrics(config.output)[-1]


# --- refusals -----------------------------------------------------------------------------------


def refusal(tmp_path: Path, *words: str) -> str:
    given = [f"output={tmp_path / 'run'}", "shards=a", "schedule.num_steps=3", *words]
    with pytest.raises(ConfigError) as caught:
        load(TokenizerRun, None, given)
    return str(caught.value)


def test_old_keys_are_refused_with_their_new_places(tmp_path: Path) -> None:
    told = refusal(tmp_path, "model.levels=[7,5,5]", "model.num_blocks=2", "model.patch=8")
    assert "model.levels: it is called model.quantizer.fsq.levels now" in told
    assert "model.num_blocks: it is called model.patches.num_blocks now" in told
    assert "model.patch: it is called model.patches.patch now" in told and "unknown" not in told


def test_sizes_and_codes_that_cannot_be_are_refused_with_the_numbers(tmp_path: Path) -> None:
    assert "make 16,777,216 codes: at most 262,144" in refusal(
        tmp_path, "model.quantizer.fsq.levels=[64,64,64,64]"
    )
    blocks = "encoder_blocks: [1,1,1], decoder_blocks: [1,1,1]"
    sixteen = f"model.convolutions={{factor: 16, widths: [8,8,8], {blocks}}}"
    assert "images.multiple 8: a multiple of the tokenizer's patch, 16" in refusal(
        tmp_path, sixteen, "images.target_pixels=4096"
    )
    assert "64 x 64 pixels: these queries read images of 32 x 32 alone" in refusal(
        tmp_path, "model.queries={height: 32, width: 32}", "images.target_pixels=4096"
    )
    assert "patches and queries: give one of them" in refusal(
        tmp_path, "model.queries.num_queries=32", "model.patches.patch=8"
    )
    told = refusal(tmp_path, "images={multiple: 0, target_pixels: 100000000}")
    assert "multiple 0: at least 1" in told
    assert "target_pixels 100,000,000: at most 64,000,000" in told
    assert "freeze_codes: codes of no meaning would be kept" in refusal(
        tmp_path, "freeze_codes=true"
    )
    assert "optimizer.muon_lr: an image tokenizer is trained by AdamW alone" in refusal(
        tmp_path, "optimizer.muon_lr=1e-2"
    )
    config = tiny_run(tmp_path, captions(10, (60, 60)), 2)
    with pytest.raises(ValueError, match="60 x 60 pixels are no whole 8-pixel patches"):
        tokenizer.train(config)
    rule = ImageRule(target_pixels=2048, max_aspect_ratio=2)
    shape = TokenizerConfig(queries=QueriesConfig(8, 32, 64, 8, 32, 1, 1, 4))
    with pytest.raises(ValueError, match="target_pixels 2048: .* images of 64 x 32 alone"):
        tokenizer.train(replace(config, images=rule, model=shape))


def test_a_backbone_that_is_not_there_stops_the_run_at_its_start(tmp_path: Path) -> None:
    loss = TokenizerLossConfig(perceptual=PerceptualConfig(model=str(tmp_path / "none")))
    config = tiny_run(tmp_path, SAMPLES, 2, loss=loss, model=TINY)
    with pytest.raises(ValueError, match="none cannot be had"):
        tokenizer.train(config)
    assert not metrics(config.output)


def test_networks_of_a_loss_that_cannot_take_the_images(tmp_path: Path, capsys) -> None:
    """Four halvings of 16 pixels leave one, which the next kernel does not fit."""
    loss = TokenizerLossConfig(adversarial=replace(ADVERSARIAL, num_layers=6))
    config = tiny_run(tmp_path, captions(10, (64, 64), (64, 32)), 2, loss=loss, batch_images=2)
    with pytest.raises(ValueError, match="loss.adversarial: .* images of 64 x 32 pixels .Calcul"):
        tokenizer.train(config)
    assert not metrics(config.output)
    tokenizer.train(replace(config, loss=TokenizerLossConfig(adversarial=ADVERSARIAL)))
    assert "adversarial.start_step 4 is not reached in 2 steps" in capsys.readouterr().err


def test_images_that_fit_other_queries_are_measured_anew(tmp_path: Path) -> None:
    """Both read patches of 8 pixels, and what the cache knows is of the first size."""
    config = tiny_run(tmp_path, captions(10, (64, 64)), 1, batch_images=2)
    shape = TokenizerConfig(queries=QueriesConfig(8, 64, 64, 8, 32, 1, 1, 4))
    tokenizer.train(replace(config, model=shape))
    other = replace(shape, queries=replace(shape.queries, height=32, width=32))
    with pytest.raises(ValueError, match="64 x 64 pixels: these queries .* 32 x 32 alone; set"):
        tokenizer.train(replace(config, model=other, output=tmp_path / "other"))

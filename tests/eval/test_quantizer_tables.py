"""Benchmarks of quantizers and image tokenizers: equal budgets, crops, tables and their checks."""

from pathlib import Path

import click
import numpy as np
import pytest
import torch
from benchmarks import image_tokenizers, markdown
from benchmarks.commands import cpu_file
from benchmarks.contenders import (
    KINDS,
    LEVELS,
    PROBES,
    SMALL,
    Budget,
    Contender,
    affordable,
    codes_needed,
    trained,
)
from benchmarks.crops import cut
from benchmarks.faults import write_tar
from benchmarks.quantizer_tables import HEAD, best_of
from PIL import Image

from unimodal import config
from unimodal.data.shards import Shard, find_shards
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.pixels import open_image


@pytest.mark.parametrize("bits", LEVELS)
def test_contenders_have_equal_codebooks_and_budgets(bits: int) -> None:
    budget, runs = Budget(30, 4), []
    for kind in KINDS:
        contender = Contender(kind, bits)
        assert contender.quantizer.build(0).num_codes == 2**bits
        runs.append(budget.run(contender, Path("shards"), Path("out")))
    assert not any(run.problems() for run in runs)
    assert all(run.schedule == runs[0].schedule and run.batch_images == 4 for run in runs)
    assert all(run.model.convolutions == SMALL for run in runs)
    assert len({Contender(kind, bits).name for kind in KINDS}) == len(KINDS)


def test_crops_are_parts_of_figures_and_cut_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    figures = [rng.integers(0, 256, (30, 40, 3), dtype=np.uint8) for _ in range(2)]
    samples = {}
    for number, figure in enumerate([*figures, figures[0][:10]]):  # the last one is too small
        path = tmp_path / "figure.png"
        Image.fromarray(figure).save(path)
        samples[f"f{number}"] = {"png": path.read_bytes()}
    shards = write_tar(tmp_path / "book.tar", samples)
    folder = cut(shards, tmp_path / "out", 6, 16, seed=3)
    shard = Shard(find_shards(folder)[0])
    assert len(shard) == 6
    places = set()
    for number in range(6):
        crop = np.asarray(open_image(shard.sample(number).files["png"]).image)
        windows = np.lib.stride_tricks.sliding_window_view(figures[number % 2], (16, 16, 3))
        found = np.argwhere((windows[:, :, 0] == crop).all((2, 3, 4)))
        assert len(found) == 1
        places.add(tuple(found[0]))
    assert len(places) > 3
    (folder / "mark").touch()
    assert (cut(shards, tmp_path / "out", 6, 16, seed=3) / "mark").exists()
    with pytest.raises(ValueError, match="no figure of 64 x 64"):
        cut(shards, tmp_path / "out", 1, 64, seed=0)


def test_usage_is_counted_on_ten_times_the_codebook() -> None:
    assert [codes_needed(bits, 64) for bits in LEVELS] == [160, 2560, 10240]


def test_equal_time_is_told_by_what_two_short_runs_took(tmp_path: Path) -> None:
    contender = Contender("LFQ")
    for steps in PROBES:  # 0.5 s a step after 6 s
        run = tmp_path / str(steps) / "runs" / contender.name
        (run / "tokenizer").mkdir(parents=True)
        cpu_file(run).write_text(f"6\n{0.5 * steps}\n")
    budget = affordable(contender, 2.6, Budget(2500, 4), Path("shards"), tmp_path)
    assert budget == Budget(300, 4)
    with pytest.raises(click.UsageError, match="100 steps took 0.93 minutes .* more --cpu-minutes"):
        affordable(contender, 0.5, Budget(2500, 4), Path("shards"), tmp_path)


def test_a_folder_is_of_one_budget(tmp_path: Path) -> None:
    contender, output = Contender("LFQ"), tmp_path / "runs" / "lfq-14"
    (output / "tokenizer").mkdir(parents=True)
    (tmp_path / "recipes").mkdir()
    config.save(
        Budget(30, 4).run(contender, Path("shards"), output), tmp_path / "recipes/lfq-14.yaml"
    )
    assert trained(contender, Budget(30, 4), Path("shards"), tmp_path) == output
    with pytest.raises(click.UsageError, match="schedule.num_steps 30 .now 40"):
        trained(contender, Budget(40, 4), Path("shards"), tmp_path)


def test_the_best_but_fsq_goes_on() -> None:
    told = [("FSQ", 30.0), ("LFQ", 20.0), ("BSQ", 25.0)]
    done = [(Contender(kind), {"psnr_db": {"value": value}}) for kind, value in told]
    assert best_of(done) == ["BSQ", "LFQ"]


def test_a_table_is_read_back(tmp_path: Path) -> None:
    path, cells = tmp_path / "new" / "table.md", [["a"] * len(HEAD), ["1.5 (1 to 2)"] * len(HEAD)]
    assert markdown.rows(path) == []
    markdown.write(path, "title", HEAD, cells)
    assert [list(row.values()) for row in markdown.rows(path)] == cells
    assert (
        markdown.interval({"value": 1234.56, "low": 1.0, "high": 2.0}, 1) == "1,234.6 (1.0 to 2.0)"
    )
    assert markdown.interval({"value": 1.0, "low": None, "high": None}, 2) == "1.00"


def test_checks_of_the_speed_table_see_what_is_not_exact() -> None:
    scale = image_tokenizers.Scale(widths=(8, 8, 8))
    ours, images = image_tokenizers.tokenizer(scale), image_tokenizers.images(2)
    codes, grid = ours.encode(images)
    assert not image_tokenizers.encoded_alone(ours, images, codes)[1]
    assert image_tokenizers.encoded_alone(ours, images, codes.flip(0))[1]
    assert not image_tokenizers.decoded_alone(ours, codes, grid)[1]
    assert isinstance(ours, ImageTokenizer) and torch.isfinite(images).all()
    line = image_tokenizers.compared(
        "encode", "peer", scale, lambda: None, lambda: None, 2, 1, ("check", ())
    )
    assert line.wrong == ("1 parameters against 2",)

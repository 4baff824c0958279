"""Growth: a bundle whose old ids are what they were, and whose new ones are ordinary."""

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import torch
from checkpoints import logits
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from spelled import document_of
from test_checkpoint import ours

from unimodal import load
from unimodal.bundle import BundleError, read_contents, save_bundle
from unimodal.command import main
from unimodal.document import Document, Image, Text
from unimodal.generation import generate
from unimodal.grammar import Grammar
from unimodal.hub.checkpoint import read_config, transformer_shapes
from unimodal.hub.grow import Growth, grow
from unimodal.hub.new_rows import SHRINK, Statistics, code_rows, gaussian_rows
from unimodal.tensors import weight_files
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.autoencoders.convolutions import ConvolutionsConfig
from unimodal.tokenizer.autoencoders.queries import QueriesConfig
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.pixels import to_images
from unimodal.tokenizer.quantizers.config import (
    BsqConfig,
    FsqConfig,
    LfqConfig,
    QuantizerConfig,
    VqConfig,
)
from unimodal.vocabulary import SPECIAL_TOKENS

GROWTH = Growth(grid=Grid(3, 2))
NUM_OLD = checkpoints.NUM_ROWS


@pytest.fixture(scope="module")
def tokenizer(tiny_model, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    tiny_model.image_tokenizer.save(directory)
    return directory


@pytest.fixture(scope="module")
def image(tiny_model) -> ImageTokenizer:
    return tiny_model.image_tokenizer


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in weight_files(directory):
        found |= load_file(path)
    return found


@pytest.mark.parametrize("rows", ["gaussian", "codes"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_old_logits_are_the_same_bits(family, tied, rows, image, tmp_path):
    kind = "pieces" if family in ("llama", "mistral") else "json"
    checkpoints.save(tmp_path / "old", family, tied, tokenizer=kind, shard="20KB")
    grow(tmp_path / "old", image, tmp_path / "new", Growth(rows=rows, grid=Grid(3, 2)))
    before, after = ours(tmp_path / "old"), load(tmp_path / "new").transformer
    ids_BT = torch.randint(0, NUM_OLD, (2, 50), generator=torch.Generator().manual_seed(1))
    positions_BT = torch.arange(50).expand(2, 50)
    with torch.inference_mode():
        whole = logits(after, ids_BT)
        assert whole.shape[-1] == NUM_OLD + len(SPECIAL_TOKENS) + 64
        torch.testing.assert_close(whole[..., :NUM_OLD], logits(before, ids_BT), rtol=0, atol=1e-6)
        hidden = [model(model.embed(ids_BT), positions_BT, attend()) for model in (before, after)]
        assert torch.equal(*hidden)
        assert torch.equal(before.logits(hidden[0]), after.logits(hidden[1], 0, NUM_OLD))


def attend():
    from unimodal.attention import PackedAttention

    none_BT = torch.zeros(2, 50, dtype=torch.int64)
    return PackedAttention(none_BT, none_BT, none_BT)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_bytes_of_old_weights_and_their_dtype_stay(dtype, image, tmp_path):
    checkpoints.save(tmp_path / "old", "qwen3", tied=False, dtype=dtype)
    directory = tmp_path / "new"
    grow(tmp_path / "old", image, directory, GROWTH, max_shard_bytes=30_000)
    assert len(weight_files(directory)) > 2
    assert max(path.stat().st_size for path in weight_files(directory)) < 95_000  # one table
    before, after = tensors(tmp_path / "old"), tensors(directory)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == dtype, name
        assert torch.equal(after[name][: len(tensor)], tensor), name
    model = load(directory)
    assert model.transformer.model.embed_tokens.weight.dtype == torch.float32
    assert model.context == 256 and model.grid == Grid(3, 2)
    assert model.card["config"]["family"] == "qwen3"


def test_growth_is_a_function_of_its_seed(image, tmp_path):
    checkpoints.save(tmp_path / "old")
    hashes = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        growth = Growth(grid=Grid(3, 2), seed=seed)
        grow(tmp_path / "old", image, tmp_path / name, growth)
        hashes.append(read_contents(tmp_path / name).hash)
    assert hashes[0] == hashes[1] != hashes[2]


def oracle(old: torch.Tensor, spelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = old.double().numpy()[spelled]
    return rows.mean(0), np.cov(rows, rowvar=False, bias=True)


def test_statistics_are_those_of_numpy():
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(500, 7)) @ generator.normal(size=(7, 7)) + 1e4
    blocks = [torch.from_numpy(block) for block in np.split(rows, [1, 100, 100, 350])]
    found = Statistics.of(blocks)
    np.testing.assert_allclose(found.mean_D, rows.mean(0), rtol=1e-13)
    expected = np.cov(rows, rowvar=False, bias=True)
    np.testing.assert_allclose(found.covariance_DD, expected, rtol=1e-9, atol=1e-9)


def test_gaussian_rows_have_the_mean_and_the_shrunk_covariance():
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(300, 5)) @ generator.normal(size=(5, 5)) + 3
    statistics = Statistics.of([torch.from_numpy(rows)])
    drawn = torch.cat(list(gaussian_rows(statistics, 200_000, 0, "x"))).numpy()
    expected = SHRINK * np.cov(rows, rowvar=False, bias=True)
    np.testing.assert_allclose(drawn.mean(0), rows.mean(0), atol=1e-4)
    np.testing.assert_allclose(np.cov(drawn, rowvar=False), expected, atol=0.02 * expected.max())
    few = torch.cat(list(gaussian_rows(statistics, 1500, 0, "x"))).numpy()
    np.testing.assert_array_equal(few, drawn[:1500])
    other = next(gaussian_rows(statistics, 10, 0, "y")).numpy()
    assert not np.allclose(other, drawn[:10], atol=1e-6)


def test_fewer_rows_than_channels_have_a_covariance_too():
    rows = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).double()
    drawn = torch.cat(list(gaussian_rows(Statistics.of([rows]), 50, 0, "x")))
    assert bool(drawn.isfinite().all())
    away = (drawn - rows.mean(0)) @ torch.linalg.svd(rows - rows.mean(0)).Vh[2:].T
    assert away.abs().max() < 1e-8  # nothing outside the plane of the old rows


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_rows_of_codes_have_the_old_mean_and_spread_and_are_alike_for_like_codes(
    tied, image, tiny_model, tmp_path
):
    checkpoints.save(tmp_path / "old", tied=tied)
    growth = Growth(rows="codes", grid=Grid(3, 2))
    grow(tmp_path / "old", image, tmp_path / "new", growth)
    before, after = tensors(tmp_path / "old"), tensors(tmp_path / "new")
    text = read_contents(tmp_path / "new").text_tokenizer
    names = ["model.embed_tokens.weight"] + ["lm_head.weight"] * (not tied)
    for name in names:
        mean, covariance = oracle(before[name], text.spelled)
        rows = after[name].double().numpy()
        codes = rows[NUM_OLD + len(SPECIAL_TOKENS) :]
        np.testing.assert_allclose(codes.mean(0), mean, atol=1e-6)
        np.testing.assert_allclose(codes.std(0), np.sqrt(covariance.diagonal()), rtol=1e-5)
        plain = code_rows(tiny_model.image_tokenizer, codes.shape[1], 0, 1.0).double().numpy()
        for k in range(codes.shape[1]):  # the same numbers, moved and scaled channel by channel
            assert np.corrcoef(plain[:, k], codes[:, k])[0, 1] == pytest.approx(1, abs=1e-6)
        control = rows[NUM_OLD : NUM_OLD + len(SPECIAL_TOKENS)]
        np.testing.assert_allclose(control, np.tile(mean, (len(SPECIAL_TOKENS), 1)), atol=0.01)
        assert len(np.unique(rows[NUM_OLD:], axis=0)) == len(SPECIAL_TOKENS) + 64
    if not tied:
        assert not torch.equal(*(after[name][NUM_OLD:] for name in names))


@pytest.mark.parametrize("kind", ["json", "pieces"])
def test_a_grown_model_talks_and_draws_and_never_says_a_mark(kind, image, tmp_path):
    checkpoints.save(tmp_path / "old", "llama", tokenizer=kind)
    model = load(grow(tmp_path / "old", image, tmp_path / "new", GROWTH))
    said = Text("<|im_start|>system</s> draw a red star<|im_end|>", role="user")
    ids = model.sequencer.prompt(Document((said,))).ids
    assert (ids < NUM_OLD).sum() == len(model.text_tokenizer.encode(said.text))
    assert model.text_tokenizer.spelled[ids[ids < NUM_OLD]].all()
    whole = [*ids[:-1], model.vocabulary.special("end")]
    assert document_of(model.sequencer.layout, whole).parts == (said,)
    with torch.no_grad():  # special tokens and padding are the likeliest of all
        weight = model.transformer.model.embed_tokens.weight
        weight[:NUM_OLD][~torch.from_numpy(model.text_tokenizer.spelled)] *= 50
    sampling = replace(model.sampling, text_temperature=1.0, max_text_tokens=20)
    replies = generate(
        model, [Document((said,))] * 4, sampling, modality=["text", None, None, None]
    )
    assert all(replies)
    grammar = Grammar(model.sequencer.layout, [model.grid], model.text_tokenizer.spelled)
    allowed = grammar.text(model.vocabulary.special("turn_end")).allowed
    assert np.array_equal(allowed[:NUM_OLD], model.text_tokenizer.spelled)
    assert not allowed[list(model.text_tokenizer.special_tokens)].any()
    (drawn,) = generate(model, [Document((said,))], sampling, modality="image")
    assert drawn[0].grid == Grid(3, 2)


F16 = ConvolutionsConfig(16, "haar", (8, 8, 8), (0, 0, 1), (0, 0, 1), 4)


@pytest.mark.parametrize(
    ("config", "grid"),
    [
        (TokenizerConfig(QuantizerConfig(lfq=LfqConfig(bits=9)), convolutions=F16), Grid(2, 3)),
        (TokenizerConfig(QuantizerConfig(bsq=BsqConfig(bits=5)), convolutions=F16), Grid(3, 1)),
        (TokenizerConfig(QuantizerConfig(vq=VqConfig(50, 4)), convolutions=F16), Grid(2, 2)),
        (
            TokenizerConfig(
                QuantizerConfig(FsqConfig((3, 5), "shifted")),
                queries=QueriesConfig(6, 32, 48, 8, 32, 1, 1, 4),
            ),
            Grid(1, 6),
        ),
    ],
    ids=["lfq", "bsq", "vq", "queries"],
)
def test_codes_of_every_kind_are_drawn_and_shown(config, grid, tmp_path):
    checkpoints.save(tmp_path / "old", "llama")
    tokenizer = ImageTokenizer(config).eval()
    model = load(grow(tmp_path / "old", tokenizer, tmp_path / "new", Growth(grid=grid)))
    height, width = config.size_of(grid)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    (shown,) = model.codec.encode([Image(pixels=pixels, role="user")])
    said = Document((shown, Text("draw it again", role="user")))
    (drawn,) = generate(model, [said], model.sampling, modality="image")
    assert drawn[0].grid == grid and drawn[0].codes.shape == (grid.size, 1)
    (decoded,) = model.codec.decode([replace(drawn[0], pixels=None)])
    expected = tokenizer.decode(torch.from_numpy(drawn[0].codes.astype(np.int64))[None], grid)
    assert np.array_equal(decoded.pixels, np.asarray(to_images(expected)[0]))
    assert decoded.pixels.shape == (height, width, 3)


def test_a_saved_grown_model_comes_back(image, tmp_path):
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    checkpoints.save(tmp_path / "old", "llama", dtype=torch.bfloat16, rope_parameters=rope)
    model = load(grow(tmp_path / "old", image, tmp_path / "new", GROWTH))
    again = load(save_bundle(tmp_path / "again", model))
    assert again.hash == model.hash  # the same files
    assert again.transformer.config.rope.factor == 2.0


# --- refusals -----------------------------------------------------------------------------------


def invoke(*words: object):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_command(tokenizer, tmp_path):
    checkpoints.save(tmp_path / "old")
    words = ("--tokenizer", tokenizer, "--output", tmp_path / "new", "--grid", "2x3")
    done = invoke("grow", tmp_path / "old", *words, "--rows", "codes", "--context", 128)
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'new'}\n"), done.output
    model = load(tmp_path / "new")
    assert (model.grid, model.context) == (Grid(2, 3), 128)
    again = invoke("grow", tmp_path / "old", *words)
    assert again.exit_code == 2 and "exists: choose another place" in again.output
    chat = invoke("chat", "--model", tmp_path / "new", "--prompt", "hello", "--output", tmp_path)
    assert chat.exit_code == 0, chat.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--grid", "8"), "grid '8': rows and columns, as in 16x16"),
        (("--grid", "8x65"), "grid 8x65: sides from 1 to 64"),
        (("--grid", "16x16"), "context 256: an image and some text take 308 tokens"),
        (("--context", "40", "--grid", "3x2"), "context 40: an image and some text take 45"),
        (("--context", "300", "--grid", "3x2"), "context 300: the checkpoint is meant for 256"),
    ],
)
def test_settings_that_do_not_fit(words, message, tokenizer, tmp_path):
    checkpoints.save(tmp_path / "old")
    output = "--output", tmp_path / "new"
    done = invoke("grow", tmp_path / "old", "--tokenizer", tokenizer, *output, *words)
    assert done.exit_code == 2 and message in done.output, done.output
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("section", "words", "message"),
    [
        ({"groups": 2}, (), "it has 2 codes at each place, and a language model reads one code"),
        ({"residual": 2}, (), "it has 2 codes at each place"),
        ({"scales": (1, 2)}, (), "it has scales, and a language model reads one code"),
        (
            {},
            ("--grid", "2x2"),
            "grid 2x2: 2 x 2 codes: an image is one row of 8 codes",
        ),
    ],
)
def test_tokenizers_that_no_language_model_reads(section, words, message, tmp_path):
    queries = None if section else QueriesConfig(num_queries=8, model_width=32)
    config = TokenizerConfig(QuantizerConfig(FsqConfig((4, 4)), **section), queries=queries)
    (tmp_path / "tokenizer").mkdir()
    ImageTokenizer(config).save(tmp_path / "tokenizer")
    checkpoints.save(tmp_path / "old")
    output = "--output", tmp_path / "new"
    done = invoke("grow", tmp_path / "old", "--tokenizer", tmp_path / "tokenizer", *output, *words)
    assert done.exit_code == 2 and message in done.output, done.output
    assert not (tmp_path / "new").exists()


def test_what_is_missing_is_named(tokenizer, tmp_path):
    output = "--output", tmp_path / "new"
    checkpoints.save(tmp_path / "old")
    done = invoke("grow", tmp_path / "old", *output)
    assert "name the image tokenizer whose codes join: --tokenizer" in done.output
    done = invoke("grow", tmp_path / "old", "--tokenizer", tmp_path, *output)
    assert "holds no image tokenizer" in done.output
    done = invoke("grow", tmp_path / "none", "--tokenizer", tokenizer, *output)
    assert "is no directory, nor an id of the hub" in done.output
    (tmp_path / "old" / "tokenizer.json").unlink()
    done = invoke("grow", tmp_path / "old", "--tokenizer", tokenizer, *output)
    assert "holds neither tokenizer.json nor tokenizer.model" in done.output


def test_the_hub_is_asked_for_weights_only_when_all_else_is_right(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    home = tmp_path / "models--somebody--small"
    folder = home / "snapshots" / ("0" * 40)
    checkpoints.save(folder, "llama")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0" * 40)
    words = "grow", "somebody/small", "--output", tmp_path / "new", "--grid", "3x2"
    done = invoke(*words, "--tokenizer", tokenizer)
    assert done.exit_code == 0, done.output
    assert load(tmp_path / "new").card["config"]["family"] == "llama"
    words = "grow", "somebody/small", "--output", tmp_path / "other"
    (folder / "model.safetensors").unlink()
    assert "name the image tokenizer" in invoke(*words).output
    done = invoke(*words, "--tokenizer", tokenizer)
    assert "there is neither model.safetensors nor" in done.output
    checkpoints.change(folder, hidden_act="gelu")
    done = invoke(*words, "--tokenizer", tokenizer)
    assert "hidden_act 'gelu': only 'silu'" in done.output and "neither" not in done.output


def test_damaged_numbers_are_seen_and_leave_nothing(image, tmp_path):
    checkpoints.save(tmp_path / "old")
    weights = tensors(tmp_path / "old")
    weights["model.embed_tokens.weight"][7, 3] = float("nan")
    save_file(weights, tmp_path / "old" / "model.safetensors")
    with pytest.raises(ValueError, match="not finite: it is damaged"):
        grow(tmp_path / "old", image, tmp_path / "new", GROWTH)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_an_interruption_leaves_nothing(image, tmp_path):
    checkpoints.save(tmp_path / "old")
    seen = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grow(tmp_path / "old", image, tmp_path / "new", GROWTH, on_progress=stop)
    assert len(seen) > 3 and all(a < b for (a, _), (b, _) in itertools.pairwise(seen))
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_full_disk_is_seen_before_and_while_writing(image, tmp_path, monkeypatch):
    checkpoints.save(tmp_path / "old")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        with pytest.raises(ValueError, match="needs 0.07 GB, the disk has 0.00 GB: make room"):
            grow(tmp_path / "old", image, disk / "new", GROWTH)
        monkeypatch.setattr("unimodal.bundle.ROOM_BYTES", -(10**9))
        with pytest.raises(BundleError, match="[Nn]o space left.*choose another place"):
            grow(tmp_path / "old", image, disk / "new", GROWTH)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- memory -------------------------------------------------------------------------------------

PEAK = """
import sys
from math import prod
from pathlib import Path
import torch, transformers
from unimodal.hub.checkpoint import read_config, transformer_shapes
from unimodal.hub.export import export
from unimodal.hub.grow import Growth, grow
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.grid import Grid

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

source, tokenizer, output = sys.argv[1:]
# Libraries that are read at first use:
transformers.AutoTokenizer, transformer_shapes(read_config(Path(source))[1])
torch.linalg.eigh(torch.eye(64).double() + 1e-3)
image = ImageTokenizer.load(Path(tokenizer))
for work in (
    lambda: grow(Path(source), image, Path(output), Growth(grid=Grid(3, 2))),
    lambda: export(Path(output), Path(output + "-exported")),
):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    work()
    print(memory("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_growth_and_export_take_far_less_memory_than_the_model(tokenizer, tmp_path):
    checkpoints.save(tmp_path / "old")
    shape = {"vocab_size": 60_000, "hidden_size": 256, "intermediate_size": 90_000}
    checkpoints.change(tmp_path / "old", **shape)
    _, grown = read_config(tmp_path / "old")
    weights = {
        name: (torch.arange(prod(shape)) % 251).bfloat16().reshape(shape)
        for name, shape in transformer_shapes(grown).items()
    }
    save_file(weights, tmp_path / "old" / "model.safetensors")
    size = (tmp_path / "old" / "model.safetensors").stat().st_size
    assert size > 300e6
    words = [str(tmp_path / "old"), str(tokenizer), str(tmp_path / "new")]
    done = subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peaks = [int(line) for line in done.stdout.split()]
    print([f"{peak / 1e6:.0f} MB of {size / 1e6:.0f}" for peak in peaks])
    assert max(peaks) < 0.25 * size, peaks

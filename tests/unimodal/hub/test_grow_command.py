"""`unimodal grow`: what it does, and what it refuses before it reads a weight."""

import checkpoints
import pytest
from click.testing import CliRunner
from growth_cases import tokenizer as tokenizer

from unimodal import load
from unimodal.command import main
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.autoencoders.queries import QueriesConfig
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.quantizers.config import FsqConfig, QuantizerConfig


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

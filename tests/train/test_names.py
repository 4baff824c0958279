"""What is shipped has names that work anywhere: the model `default`, and the recipes."""

import json
import shutil
from pathlib import Path

import checkpoints
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_runs import recipe, write_tokenizer

import unimodal
from unimodal.bundle import DEFAULT, BundleError, directory_of, read_contents
from unimodal.command import main
from unimodal.config import ConfigError, load, save, shipped
from unimodal.image_tokenizers import load_tokenizer
from unimodal.train import lm
from unimodal.train.run import LmRun

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, in which nothing of the repository is found by a relative path."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*words: object) -> str:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def refused(*words: object) -> str:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 2, done.output
    return done.output


def test_the_name_is_the_shipped_model_everywhere(elsewhere: Path):
    for name in (None, "default", Path("default"), Path("./default")):
        assert directory_of(name) == DEFAULT
    assert directory_of("mine") == Path("mine")
    assert unimodal.load("default").hash == read_contents(DEFAULT).hash
    (elsewhere / "default").mkdir()  # anybody's folder
    assert directory_of("default") == DEFAULT


def test_another_model_of_that_name_is_no_matter_of_chance(elsewhere: Path):
    shutil.copytree(DEFAULT, elsewhere / "default")
    with pytest.raises(BundleError, match=f"{elsewhere}/default is another: say its whole path"):
        directory_of("default")
    assert directory_of(elsewhere / "default") == elsewhere / "default"


def test_the_path_in_the_repository_works_there(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(BundleError, match="no such directory; `default` is the shipped model"):
        directory_of("unimodal/default")
    monkeypatch.chdir(ROOT)
    assert load_tokenizer("unimodal/default").hash == load_tokenizer("default").hash
    monkeypatch.chdir(ROOT / "unimodal")
    assert directory_of("default") == DEFAULT


def test_verbs_take_the_name(elsewhere: Path):
    Image.new("RGB", (64, 64), "red").save("a.png")
    invoke("encode", "a.png", "--model", "default", "--output", "codes.json")
    codes = json.loads((elsewhere / "codes.json").read_text())
    assert codes["tokenizer"] == load_tokenizer(None).hash
    invoke("decode", "codes.json", "--model", "default", "--output", "out")
    assert (elsewhere / "out" / "a.png").exists()
    for name, words in {"s.json": ["default"], "t.json": []}.items():
        invoke("eval", "tokenizer", *words, "--samples", 2, "--json", name)
    found = [json.loads((elsewhere / name).read_text()) for name in ("s.json", "t.json")]
    assert found[0]["predictions"] == found[1]["predictions"]
    said = refused("export", "default", "--format", "hf", "--output", "hf")
    assert f"{DEFAULT} adds the row and column" in said.replace("\n", " ")


def test_growth_takes_the_name(elsewhere: Path):
    checkpoints.save(elsewhere / "old")
    words = "grow", "old", "--tokenizer", "default", "--output", "new", "--grid", "2x3"
    invoke(*words)
    assert read_contents(elsewhere / "new").image_tokenizer.hash == load_tokenizer("default").hash
    assert "or `default`" in refused("grow", "old", "--output", "other")


def test_data_takes_the_name(elsewhere: Path, shards: Path):
    invoke("data", "encode", shards, "codes", "--tokenizer", "default")
    (elsewhere / "r.yaml").write_text(
        f"sources: {{s: {{shards: {shards}}}}}\ntokenizer: default\nweights: default\n"
    )
    one = invoke("data", "digest", "--config", "r.yaml", "--rows", 2)
    two = invoke("data", "digest", elsewhere / "codes", "--rows", 2)
    assert one.splitlines()[0:2] == two.splitlines()[0:2]  # the hashes of both tokenizers


def test_the_folder_of_a_tokenizers_run_is_its_tokenizer(elsewhere: Path, shards: Path):
    """As `encode` and `eval tokenizer` have it: where data is encoded, grown and trained on too."""
    (elsewhere / "made").mkdir()
    trained = write_tokenizer(elsewhere / "made" / "tokenizer")
    assert load_tokenizer("made").hash == load_tokenizer(trained).hash
    invoke("data", "encode", shards, "codes", "--tokenizer", "made")
    assert json.loads(Path("codes/encode.json").read_text())["tokenizer"] == (
        load_tokenizer(trained).hash
    )
    bundle = lm.train(recipe(elsewhere / "run", shards, Path("made"), 1))
    assert read_contents(bundle).image_tokenizer.hash == load_tokenizer(trained).hash
    assert load_tokenizer(bundle).hash == load_tokenizer(trained).hash
    with pytest.raises(ValueError, match="holds no image tokenizer"):
        load_tokenizer(elsewhere)


def test_a_recipe_takes_the_name_and_keeps_it(elsewhere: Path, shards: Path):
    """As `tokenizer` and as `weights`; a run that is gone on with from another place too."""
    tiny = recipe(elsewhere / "run", shards, Path("default"), 1)
    save(tiny, elsewhere / "lm.yaml")
    words = ["weights=default", "model=null", "text_ids=null", "optimizer.muon_lr=null",
             "loader.batch_rows=1"]  # fmt: skip
    lm.train(load(LmRun, "lm.yaml", words))
    kept = (elsewhere / "run" / "config.yaml").read_text()
    assert "tokenizer: default\n" in kept and "weights: default\n" in kept
    more = [*words, f"weights={DEFAULT}", "schedule.num_steps=2", "schedule.warmup_steps=0"]
    lm.train(load(LmRun, "lm.yaml", more))
    card = unimodal.load(elsewhere / "run" / "bundle").card
    assert card["began_from"]["hours"] == read_contents(DEFAULT).card["hours"]


# --- recipes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scenes_lm", "scenes_lm.yaml", "configs/scenes_lm.yaml"])
def test_a_recipe_is_found_by_its_name(name: str):
    assert load(LmRun, name) == load(LmRun, ROOT / "configs" / "scenes_lm.yaml")


def test_names_with_dots_and_files_of_deepspeed():
    assert shipped("lm_1.7b").name == "lm_1.7b.yaml"
    assert shipped("zero3", ".json").read_text() == (ROOT / "configs" / "zero3.json").read_text()
    recipe = load(LmRun, "lm_1.7b", ["engine.deepspeed=zero2"])
    zero = recipe.engine.zero(2, 1.0, True)
    assert zero is not None and zero.stage == 2


def test_a_file_of_ones_own_comes_first(elsewhere: Path, shards: Path):
    mine = recipe(elsewhere / "run", shards, Path("default"), 1)
    save(mine, elsewhere / "scenes_lm")
    assert load(LmRun, "scenes_lm") == mine
    (elsewhere / "grown").mkdir()  # a folder is no recipe
    assert load(LmRun, "grown").output == Path("runs/grown_lm")


def test_a_name_that_is_none_is_told_those_that_are():
    with pytest.raises(ConfigError, match="none of that name is shipped: .*scenes_lm, scenes_lm_m"):
        shipped("scenes")
    for words in (("train", "lm"), ("train", "plan", "--gpus", 1, "--memory-gb", 1)):
        said = refused(*words, "other/scenes_lm")
        assert "other/scenes_lm: No such file, and none of that name is shipped" in said


def test_verbs_find_recipes_by_name(elsewhere: Path):
    done = CliRunner().invoke(
        main, ["train", "plan", "lm_7b", "--gpus", "64", "--memory-gb", "80", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["fits"]
    assert "runs/conversations holds no .tar shard" in refused("train", "lm", "scenes_lm")
    assert "runs/images holds no .tar shard" in refused("train", "tokenizer", "scenes_tokenizer")
    said = refused("data", "digest", "--config", "scenes_lm", "--rows", 1)
    assert "tokenizer" in said or "no .tar shard" in said


def test_a_plan_names_what_works_here():
    """The settings that it proposes are taken where it was asked."""
    words = ["train", "plan", "lm_7b", "engine.deepspeed=zero2", "--memory-gb", "40"]
    done = CliRunner().invoke(main, [*words, "--gpus", "64"])
    assert done.exit_code == 1 and "it would with " in done.output
    proposed = done.output.partition("it would with ")[2].split()
    gpus = [] if "--gpus" in proposed else ["--gpus", "64"]
    again = CliRunner().invoke(main, [*words, *proposed, *gpus])
    assert again.exit_code == 0, again.output

"""`unimodal train teach`: from a folder of captioned images to a bundle and its report."""

import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image as PILImage
from tiny_runs import recipe, write_conversations

from unimodal import manifest
from unimodal.bundle import load
from unimodal.command import main
from unimodal.config import load as load_config
from unimodal.data.folder import write_json
from unimodal.data.formats import detect_format, document, variants
from unimodal.data.loader import Loader
from unimodal.data.shards import Shard
from unimodal.data.windows import planned_rows
from unimodal.document import Document, Image, Text
from unimodal.eval.options import EVAL_SEED
from unimodal.eval.predictions import read_predictions
from unimodal.eval.results.stored import Result as Stored
from unimodal.sampling import Sampling
from unimodal.train import lm
from unimodal.train.lesson import recipe as lessons
from unimodal.train.lesson.album import read_album
from unimodal.train.lesson.lesson import Lesson
from unimodal.train.lesson.report import lost
from unimodal.train.run import LmRun

pytest.importorskip("peft")
pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("red", "green", "blue", "grey", "white", "black")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """A bundle that has learned scenes, for one step."""
    folder = tmp_path_factory.mktemp("bundle")
    shards = write_conversations(folder / "shards", 24, 24)
    write_json(shards / "scenes.json", {"seed": 7})
    brief = Sampling(max_text_tokens=8, max_images=1)
    return lm.train(replace(recipe(folder / "run", shards, tokenizer, 1), sampling=brief))


def fill(folder: Path, count: int = 6) -> Path:
    """Write plain images with a .txt beside each."""
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES[:count]):
        pixels = np.zeros((40, 50, 3), np.uint8)
        pixels[:, : 8 * number + 4] = 40 * number + 30
        PILImage.fromarray(pixels).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a {name} bar\n")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return fill(tmp_path / "pictures")


def teach(*words: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["train", "teach", *map(str, words)])


def refused(*words: object) -> str:
    """What a command says that is refused before it writes anything."""
    result = teach(*words)
    assert result.exit_code == 2 or isinstance(result.exception, SystemExit), result.output
    assert result.exit_code != 0
    return " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> tuple[Path, Result]:
    """A lesson of five images with one held out, to its end."""
    folder = tmp_path_factory.mktemp("taught")
    source = fill(folder / "pictures")
    result = teach(source, "--output", folder / "mine", "--bundle", bundle, "--steps", 2,
                   "--hold-out", 1, "--exam", 1, "--adapters")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    return folder / "mine", result


def test_a_lesson_ends_with_a_bundle_a_sheet_and_a_report(taught: tuple[Path, Result], bundle):
    output, result = taught
    model = load(output / "bundle")
    assert model.hash != load(bundle).hash and model.card["began_from"]["data_seeds"] == [7]
    assert (output / "adapter").is_dir()
    with PILImage.open(output / "before_after.png") as sheet:
        assert sheet.width == 8 * (128 + 24) and sheet.height > 3 * 128
    report = (output / "report.md").read_text()
    for words in ("5 images taught, 1 held out", "taught / named", "held out / named",
                  "questions / overall", "edits / overall", f"--model {output / 'bundle'}",
                  "50% of the tokens"):  # fmt: skip
        assert words in report, words
    assert f"talk with it: unimodal chat --model {output / 'bundle'}" in result.stdout
    assert "6 images, 0 left out, 5 taught, 1 held out" in result.stderr
    assert "6 of 6 images: resized and cropped from 50 x 40 to 64 x 64 pixels" in result.stderr


def test_what_fell_is_told_request_by_request(taught: tuple[Path, Result]):
    """All eleven questions: sure. All six drawings, among four parts: perhaps."""
    output, _ = taught
    path = output / "exams" / "scenes_after.jsonl"
    recipe, kept = read_predictions(path)
    fell = {"questions": 11, "drawing": 6}
    answers = [
        [one | {"right": was or one["part"] not in fell} for one in kept.values()]
        for was in (True, False)
    ]
    assert all(sum(one["part"] == part for one in answers[0]) == n for part, n in fell.items())
    before, after = (
        Stored(path.with_name(f"{name}.jsonl"), {}, recipe, some)
        for name, some in zip(("before", "after"), answers, strict=True)
    )
    words = lost(before, after)
    assert "Worse than before: questions / overall (1.000 to 0.000, p 0.00" in words
    assert "Perhaps worse: drawing / overall (1.000 to 0.000, p 0.0" in words
    assert lost(before, replace(before, path=after.path)).startswith("No fall is sure")
    assert lost(after, before).startswith("No fall is sure"), "a gain is none"


def test_both_exams_ask_the_same(taught: tuple[Path, Result]):
    output, _ = taught
    for kind, least in (("images", 12), ("scenes", 30)):
        asked = []
        for when in ("before", "after"):
            lines = (output / "exams" / f"{kind}_{when}.jsonl").read_text().splitlines()
            asked.append([(one["id"], one["prompt"]) for one in map(json.loads, lines[1:])])
        assert asked[0] == asked[1] and len(asked[0]) >= least


def test_what_is_held_out_is_not_taught(taught: tuple[Path, Result]):
    output, _ = taught
    shard = Shard(output / "images" / "shard-000000.tar")
    learned = {shard.sample(number).fields["caption"][0] for number in range(len(shard))}
    lines = (output / "exams" / "images_after.jsonl").read_text().splitlines()[1:]
    told = {(one["expected"], one["held_out"]) for one in map(json.loads, lines)}
    assert (
        len(learned) == 5
        and len(shard) == 5 * lessons.COPIES
        and {(words, False) for words in learned} < told
    )
    assert {words for words, held_out in told if held_out}.isdisjoint(learned)


def test_drawing_and_naming_are_taught_in_several_phrasings(taught: tuple[Path, Result]):
    shard = Shard(taught[0] / "images" / "shard-000000.tar")
    asked: dict[str, set[str]] = {}
    for number in range(len(shard)):
        sample = shard.sample(number)
        assert detect_format(sample) == "request"
        made = [document(sample, "request", one) for one in range(variants(sample, "request"))]
        draws = [one.parts[0].text for one in made if isinstance(one.parts[1], Image)]
        names = [one.parts[1].text for one in made if isinstance(one.parts[0], Image)]
        assert len(set(draws)) == len(set(names)) == 4
        (caption,) = sample.fields["caption"]
        assert all(caption in words for words in draws)
        asked.setdefault(caption, set()).update(draws)
        assert {one.parts[2].text for one in made if isinstance(one.parts[0], Image)} == {caption}
    assert len(asked) == 5 and all(len(phrasings) > 12 for phrasings in asked.values())


def test_the_same_command_says_the_same_again(taught: tuple[Path, Result], bundle: Path):
    output, first = taught
    before = load(output / "bundle").hash
    again = teach(output.parent / "pictures", "--output", output, "--bundle", bundle, "--steps", 2,
                  "--hold-out", 1, "--exam", 1, "--adapters")  # fmt: skip
    assert again.exit_code == 0 and again.stdout == first.stdout
    assert "was begun before" in again.stderr and load(output / "bundle").hash == before


def test_another_lesson_is_refused_in_a_folder(taught: tuple[Path, Result], bundle: Path):
    output, _ = taught
    same = (output.parent / "pictures", "--output", output, "--bundle", bundle, "--hold-out", 1,
            "--exam", 1)  # fmt: skip
    assert "was begun with steps 2 (now 3)" in refused(*same, "--adapters", "--steps", 3)
    words = refused(*same, "--steps", 2)
    assert "all_weights False (now True)" in words, "a small bundle trains all by default"
    assert "another --output" in words


def test_a_stopped_lesson_goes_on_bit_for_bit(
    pictures: Path, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    def words(name: str) -> tuple[object, ...]:
        return (pictures, "--output", tmp_path / name, "--bundle", bundle, "--steps", 4,
                "--exam", 0)  # fmt: skip

    assert teach(*words("whole")).exit_code == 0
    monkeypatch.setattr(lm, "_seen", stopping(lm._seen, after=2))
    stopped = teach(*words("parts"))
    assert stopped.exit_code == 75, stopped.output
    assert not (tmp_path / "parts" / "report.md").exists()
    monkeypatch.undo()
    result = teach(*words("parts"))
    assert result.exit_code == 0 and "goes on to step 4" in result.stderr
    whole, parts = (load(tmp_path / name / "bundle").hash for name in ("whole", "parts"))
    assert whole == parts


def stopping(seen: Callable, after: int) -> Callable:
    """Ask this process to stop in a step, as Ctrl-C and SIGTERM do."""
    calls = []

    def wrapped(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == after:
            os.kill(os.getpid(), signal.SIGTERM)
        return seen(*arguments)

    return wrapped


@pytest.mark.parametrize("replay", [0.25, 0.8])
def test_the_share_of_replay_is_exact(tmp_path: Path, pictures: Path, bundle: Path, replay: float):
    """In tokens of the rows that a run reads, to a document."""
    model, num_steps = load(bundle), 32
    lesson = Lesson(pictures, tmp_path / "mine", bundle, replay=replay)
    album = read_album(pictures, model, 1024)
    lessons.write_images(lesson.output / "images", album.images)
    conversations = lessons.replay_of(lesson, model, num_steps)
    lessons.write_replay(lesson.output / "replay", conversations)
    assert conversations.seed > EVAL_SEED and conversations.seed >= 2**40
    run = lessons.run_of(lesson, model, num_steps)
    loader = Loader(run.sources, model.sequencer, model.codec, run.loader)
    num_rows = num_steps * run.loader.batch_rows
    assert num_rows % run.loader.window_rows == 0, "whole windows are read"
    tokens = {"images": 0, "replay": 0}
    for row, _ in islice(planned_rows(loader.planner, loader.state), num_rows):
        for place in row:
            tokens[loader.planner.streams[place.stream].name] += place.length
    length = run.loader.sequence_length
    assert abs(tokens["replay"] - replay * sum(tokens.values())) < length, "to a document"
    assert sum(tokens.values()) > 0.95 * num_rows * length
    units = num_rows * length * replay / lessons.CONVERSATION_TOKENS
    assert abs(conversations.samples - units) <= 1, "about what is read is made"


def has_drawing(talk: Document) -> bool:
    return any(isinstance(part, Image) and part.role == "assistant" for part in talk.parts)


def is_planned(talk: Document) -> bool:
    texts = [part.text for part in talk.parts if isinstance(part, Text)]
    return any(text.startswith(("a plan: ", "a change: ")) for text in texts)


def test_the_shipped_bundle_replays_its_own_drawings_and_plans(pictures: Path, tmp_path: Path):
    """What rewards taught it stands in no conversation that is made, and neither do its plans by
    the usual mix.
    """
    output = tmp_path / "mine"
    result = teach(pictures, "--output", output, "--steps", 6, "--exam", 0)
    assert result.exit_code == 0, result.stderr
    run = load_config(LmRun, output / "config.yaml")
    own, replay = run.sources["own"].weight, run.sources["replay"].weight
    assert 0.2 < own <= 0.25 and own + replay == 0.5 == run.sources["images"].weight
    assert run.loader.caption_dropout == 0.0, "it draws without guidance"
    kept = [Shard(path).document(0) for path in sorted((output / "own").glob("*.tar"))]
    assert kept and all(map(is_planned, kept))
    (shard,) = (output / "replay").glob("*.tar")
    talks = [document(Shard(shard).sample(at), "document") for at in range(len(Shard(shard)))]
    drawn = [one for one in talks if has_drawing(one)]
    assert len(list(filter(is_planned, drawn))) > 0.8 * len(drawn) > 0
    assert "up to half of that: its own right drawings" in result.stderr


# --- what is checked before time is spent -------------------------------------------------------


def test_images_that_cannot_be_used_are_named(pictures: Path, tmp_path: Path, bundle: Path):
    (pictures / "red.txt").unlink()
    (pictures / "green.txt").write_text(" \n")
    content = (pictures / "blue.png").read_bytes()
    (pictures / "blue.png").write_bytes(content[: len(content) // 2])
    (pictures / "grey.txt").write_text("long " * 2000)
    words = refused(pictures, "--output", tmp_path / "mine", "--bundle", bundle)
    assert "4 of 6 images cannot be used" in words and "--skip-bad" in words
    for name in ("red.png: no red.txt", "green", "blue.png", "grey.png: its caption"):
        assert name in words, name
    assert not (tmp_path / "mine").exists()
    result = teach(pictures, "--output", tmp_path / "mine", "--bundle", bundle, "--skip-bad",
                   "--steps", 1, "--exam", 0, "--replay", 0)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "4 left out, 2 taught" in result.stderr and "2 images are few" in result.stderr
    assert "nothing is replayed" in (tmp_path / "mine" / "report.md").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--hold-out", 6), "--hold-out 6 of 6 images leaves none"),
        (("--steps", 5, "--minutes", 2), "give one of them"),
        (("--minutes", 0.00001), "a step takes"),
        (("--replay", 0, "--mix", "people"), "--replay 0 replays nothing"),
        (("--mix", "drow=1"), "--mix drow=1"),
        (("--replay", 1), "--replay"),
    ],
)
def test_what_does_not_fit_is_refused(
    pictures: Path, tmp_path: Path, bundle: Path, words: tuple[object, ...], said: str
):
    assert said in refused(pictures, "--output", tmp_path / "mine", "--bundle", bundle, *words)
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("name", ["minutes", "replay"])
def test_nan_is_no_number(pictures: Path, tmp_path: Path, bundle: Path, name: str):
    options = ("--output", tmp_path / "mine", "--bundle", bundle)
    said = refused(pictures, *options, f"--{name}", "nan")
    assert f"Invalid value for '--{name}': nan is not in the range 0" in said
    lesson = replace(Lesson(pictures, tmp_path / "mine", bundle), **{name: math.nan})
    assert f"--{name} nan: no number of any size" in lesson.problems()


def test_folders_that_will_not_do(pictures: Path, tmp_path: Path, bundle: Path):
    options = ("--bundle", bundle, "--output")
    assert "lies in" in refused(pictures, *options, pictures / "mine")
    assert "there is no" in refused(tmp_path / "gone", *options, tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    empty = refused(tmp_path / "empty", *options, tmp_path / "mine")
    assert "empty is empty: give a folder of images, each with its caption" in empty
    image = next(pictures.glob("*.png"))
    assert f"{image.name} is one image: give a folder" in refused(
        image, *options, tmp_path / "mine"
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert "exists" in refused(pictures, *options, tmp_path / "full")
    for path in pictures.glob("*.txt"):
        path.unlink()
    assert "has no image with a caption" in refused(pictures, *options, tmp_path / "mine")


@pytest.mark.parametrize("name", ["captions.csv", "metadata.jsonl"])
def test_captions_may_stand_in_a_table(pictures: Path, bundle: Path, name: str):
    for path in pictures.glob("*.txt"):
        path.unlink()
    rows = [(f"{one}.png", f"the {one} one") for one in NAMES[1:]]
    if name.endswith(".csv"):
        lines = ["image,caption", *(",".join(row) for row in rows)]
    else:
        lines = [json.dumps({"file_name": file, "text": words}) for file, words in rows]
    (pictures / name).write_text("\n".join(lines) + "\n")
    album = read_album(pictures, load(bundle), 1024)
    assert [(one.name, one.captions) for one in album.images] == [(f, (w,)) for f, w in rows]
    assert album.images[0].pixels.shape == (64, 64, 3)
    if name == "captions.csv":
        assert album.bad == ("red.png: pictures has no caption of it",)
    else:
        assert "1 .png" in album.notes[-1], "the reader tells of files that no row names"


def test_several_captions_are_several_ways_to_say_it(pictures: Path, bundle: Path):
    (pictures / "red.txt").unlink()
    write_json(pictures / "red.json", {"caption": ["a bar", "something red"]})
    album = read_album(pictures, load(bundle), 1024)
    assert ("a bar", "something red") in [one.captions for one in album.images]


def test_what_the_tokenizer_cannot_show_is_told(pictures: Path, bundle: Path):
    """The tokenizer is untrained: it shows nothing."""
    album = read_album(pictures, load(bundle), 1024)
    (warning,) = album.warnings()
    assert "cannot show 6 of 6 images (PSNR below 20 dB)" in warning
    worst = min(album.images, key=lambda one: one.psnr_db)
    assert f"{worst.name} {worst.psnr_db:.1f}" in warning


def test_a_bundle_without_scenes_replays_nothing(pictures: Path, tmp_path: Path, bundle: Path):
    other = shutil.copytree(bundle, tmp_path / "other")
    card = json.loads((other / "card.json").read_text()) | {"data_seeds": []}
    write_json(other / "card.json", card)
    manifest.write(other)
    options = (pictures, "--output", tmp_path / "mine", "--bundle", other)
    assert "has not learned the world of scenes" in refused(*options, "--replay", 0.5)
    assert "has not learned the world of scenes" in refused(*options, "--exam", 3)
    result = teach(*options, "--steps", 1)
    assert result.exit_code == 0, result.stderr
    assert "no old exam is taken" in result.stderr
    assert not (tmp_path / "mine" / "replay").exists()
    assert "The exam of scenes was left out" in (tmp_path / "mine" / "report.md").read_text()


def test_held_out_images_are_chosen_by_the_seed(pictures: Path, bundle: Path):
    album = read_album(pictures, load(bundle), 1024)
    chosen = {
        seed: {one.name for one in album.held_out(2, seed).images if one.is_held_out}
        for seed in range(8)
    }
    assert {len(names) for names in chosen.values()} == {2}
    assert chosen[0] == {one.name for one in album.held_out(2, 0).images if one.is_held_out}
    assert len(set(map(frozenset, chosen.values()))) > 2

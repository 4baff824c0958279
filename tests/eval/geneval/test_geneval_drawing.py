"""Folders of GenEval: drawn by a tiny model, gone on with, looked at; refused when not whole."""

import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from click.testing import CliRunner
from drawn_things import write_blocks
from PIL import Image

from unimodal.bundle import save_bundle
from unimodal.command import main
from unimodal.data.scenes.world import COLOURS, SHAPES, Background, Scene, SceneObject, render
from unimodal.data.things.names import NAMES
from unimodal.data.things.table import things_of
from unimodal.eval.geneval.detector import Detector, detect, read_detections, refuse_unproven
from unimodal.eval.geneval.drawing import Rewriting, draw
from unimodal.eval.geneval.folder import read_folder, sample_file, write_prompt
from unimodal.eval.geneval.prompts import Prompt, Wanted, make_prompts
from unimodal.eval.geneval.rules import Found
from unimodal.eval.geneval.scene_detector import SceneDetector, ThingDetector
from unimodal.eval.geneval.scoring import report_of
from unimodal.tokenizer.grid import Grid

PROMPTS = make_prompts(("circle", "star"), 1, seed=3)[:3]


@pytest.fixture(scope="module")
def painter(drawing_model):
    """Draws random codes, 64 x 64 pixels."""
    return replace(drawing_model, grid=Grid(8, 8))


@pytest.fixture(scope="module")
def once(painter, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("once") / "drawn"
    draw(painter, PROMPTS, root, samples=2, seed=5)
    return root


@pytest.fixture
def drawn(once, tmp_path) -> Path:
    """A folder with two images of each of three prompts, to spoil."""
    return Path(copytree(once, tmp_path / "drawn"))


def contents(root: Path) -> dict[str, bytes]:
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


def test_images_are_laid_out_as_geneval_reads_them(drawn):
    there = contents(drawn)
    assert sorted(there) == sorted(
        [f"{n:05d}/{name}" for n in range(3) for name in
         ("metadata.jsonl", "grid.png", "samples/0000.png", "samples/0001.png")] + ["drawn.jsonl"]
    )  # fmt: skip
    assert json.loads(there["00001/metadata.jsonl"]) == PROMPTS[1].json()
    assert Image.open(drawn / "00000/grid.png").size == (128, 64)
    head, *lines = map(json.loads, there["drawn.jsonl"].splitlines())
    assert {line["id"] for line in lines} == {f"{n:05d}/{s:04d}" for n in range(3) for s in (0, 1)}
    assert len({line["seed"] for line in lines}) == 6 and lines[0]["prompt"] == PROMPTS[0].text
    assert head["recipe"]["seed"] == 5 and head["recipe"]["resolution"] == "64x64"
    assert there["00000/samples/0000.png"] != there["00000/samples/0001.png"]
    found = read_folder(drawn, PROMPTS)
    assert found.samples == 2 and found.prompts == tuple(PROMPTS)


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(painter, drawn):
    before = contents(drawn)
    kept = sample_file(drawn, 0, 0).stat().st_mtime_ns
    sample_file(drawn, 1, 1).unlink()  # its line is there
    lines = (drawn / "drawn.jsonl").read_bytes().splitlines(keepends=True)
    (drawn / "drawn.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:10])  # its image is there
    draw(painter, PROMPTS, drawn, samples=2, seed=5)
    assert contents(drawn) == before
    assert sample_file(drawn, 0, 0).stat().st_mtime_ns == kept


def test_an_image_depends_on_its_own_seed_alone(painter, drawn, tmp_path):
    other = tmp_path / "other"
    draw(painter, PROMPTS, other, samples=3, seed=5, batch=1)
    for number in range(3):
        for sample in range(2):
            mine, theirs = (sample_file(root, number, sample) for root in (drawn, other))
            assert mine.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("how", ["seed", "samples", "prompts", "rewriting", "guidance"])
def test_a_folder_of_other_images_is_not_gone_on_with(painter, drawn, how):
    wanted = {"prompts": PROMPTS, "samples": 2, "seed": 5, "sampling": None, "rewriting": None}
    wanted |= {
        "seed": {"seed": 6},
        "samples": {"samples": 3},
        "prompts": {"prompts": PROMPTS[::-1]},
        "rewriting": {"rewriting": Rewriting("llama", ("a", "b", "c"))},
        "guidance": {"sampling": replace(painter.sampling, guidance=2.0)},
    }[how]
    before = contents(drawn)
    with pytest.raises(ValueError, match="another recipe"):
        draw(painter, root=drawn, **wanted)
    assert contents(drawn) == before


@pytest.mark.parametrize("name", ["0000.png", "00001.png"])
def test_a_folder_that_somebody_else_drew_stays_as_it_was(painter, drawn, name):
    """Whatever their images are called: the official script has five digits."""
    (drawn / "drawn.jsonl").unlink()
    for number in range(3):
        sample_file(drawn, number, 0).rename(sample_file(drawn, number, 0).with_name(name))
        sample_file(drawn, number, 1).unlink()
    before = contents(drawn)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"00000/samples/{name} was not drawn here"):
            draw(painter, PROMPTS, drawn, samples=1, seed=5)
    assert contents(drawn) == before


def test_rewritten_prompts_are_drawn_and_the_numbers_say_so(painter, tmp_path):
    root, file = tmp_path / "drawn", tmp_path / "found.jsonl"
    texts = tuple(f"draw it, please: {prompt.text}" for prompt in PROMPTS)
    draw(painter, PROMPTS, root, 1, seed=5, rewriting=Rewriting("llama", texts))
    found = read_folder(root, PROMPTS)  # what is judged stays as it was
    assert found.recipe["rewriter"] == "llama"
    assert json.loads((root / "drawn.jsonl").read_text().splitlines()[1])["prompt"] == texts[0]
    detect(found, SceneDetector(), file, {})
    report = report_of(read_detections(file, PROMPTS))
    assert list(report["scores"])[0] == "geneval_by_scenes_prompts_by_llama"
    assert report["recipe"]["rewriter"] == "llama" and report["recipe"]["model"] == painter.hash


def spoil(root: Path, how: str) -> None:
    """Make a folder wrong in one way."""
    if how == "no folder":
        for file in sorted((root / "00001").rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        (root / "00001").rmdir()
    elif how == "no image":
        sample_file(root, 1, 1).unlink()
    elif how == "one image more":
        sample_file(root, 1, 2).write_bytes(sample_file(root, 1, 1).read_bytes())
    elif how == "no prompt":
        (root / "00001/metadata.jsonl").unlink()
    elif how == "no text":
        (root / "00001/metadata.jsonl").write_bytes(b"\xff")
    elif how == "a prompt twice":
        copytree(root / "00001", root / "1")
    elif how == "a folder far off":
        (root / "99999999999").mkdir()
    elif how == "a link":
        secret = root.parent / "secret.png"
        secret.write_bytes(sample_file(root, 1, 1).read_bytes())
        sample_file(root, 1, 1).unlink()
        sample_file(root, 1, 1).symlink_to(secret)
    elif how == "another prompt":
        (root / "00001/metadata.jsonl").write_text(json.dumps(PROMPTS[0].json()))
    else:
        write_prompt(root, 3, PROMPTS[0])


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("no folder", "lacks 1 of 3 prompts, 00001 first: it is half-finished"),
        ("no image", "00001 has 1 of 2 images: it is half-finished"),
        ("one image more", "00001 has 3 of 2 images: take .*png and what follows it away"),
        ("no prompt", "metadata.jsonl is missing"),
        ("no text", "metadata.jsonl is no UTF-8"),
        ("a link", "0001.png is a link that leads out of"),
        ("a prompt twice", "are the same prompt"),
        ("another prompt", "is not of the prompt"),
        ("a folder more", "has a folder 3, but there are 3 prompts"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(drawn, how, told):
    spoil(drawn, how)
    with pytest.raises(ValueError, match=told):
        read_folder(drawn, PROMPTS)


def test_prompts_that_were_changed_after_drawing_are_refused(drawn):
    spoil(drawn, "another prompt")
    with pytest.raises(ValueError, match="drawn.jsonl is of other prompts than metadata.jsonl"):
        read_folder(drawn)


def test_a_folder_of_a_large_number_takes_no_memory(drawn):
    spoil(drawn, "a folder far off")
    with pytest.raises(ValueError, match="lacks 99999999996 of 100000000000 prompts, 00003 first"):
        read_folder(drawn)


def test_a_folder_that_nobody_drew_into(tmp_path):
    with pytest.raises(ValueError, match="has no folders 00000, 00001"):
        read_folder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n", b"no image at all"])
def test_a_broken_image_stops_detection_and_is_no_zero(drawn, tmp_path, content):
    file, found = tmp_path / "found.jsonl", read_folder(drawn)
    whole = sample_file(drawn, 1, 0).read_bytes()
    sample_file(drawn, 1, 0).write_bytes(content)
    with pytest.raises(ValueError, match="00001/samples/0000.png"):
        detect(found, SceneDetector(), file, {})
    with pytest.raises(ValueError, match="lacks 4 of 6 images, 00001/0000 first"):
        read_detections(file)
    sample_file(drawn, 1, 0).write_bytes(whole)
    detect(found, SceneDetector(), file, {})  # goes on
    assert len(read_detections(file).images) == 6


def test_an_image_that_was_changed_since_it_was_looked_at_is_refused(drawn, tmp_path):
    file, found = tmp_path / "found.jsonl", read_folder(drawn)
    detect(found, SceneDetector(), file, {})
    before = file.read_bytes()
    sample_file(drawn, 1, 1).write_bytes(sample_file(drawn, 0, 0).read_bytes())
    with pytest.raises(ValueError, match="00001/samples/0001.png is not the image that .* remove"):
        detect(read_folder(drawn), SceneDetector(), file, {})
    assert file.read_bytes() == before


def test_the_detector_of_scenes_finds_boxes_and_colours_to_the_pixel():
    objects = (
        SceneObject("star", "blue", "small", 0.25, 0.3),
        SceneObject("star", "red", "large", 0.7, 0.7),
    )
    image = render(Scene(Background("plain", "grey"), objects), 128)
    found = SceneDetector().find(image, PROMPTS[0])
    want = {one.colour: [one.x * 128, one.y * 128, one.width * 128] for one in objects}
    for colour, (x1, y1, x2, y2, _) in zip(found.colours["star"], found.boxes["star"], strict=True):
        x, y, width = want[colour]
        assert [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1] == pytest.approx([x, y, width], abs=1.5)
    surest = found.boxes["star"][:, 4].argmax()
    assert found.colours["star"][surest] == "red" and (found.boxes["star"][:, 4] > 0.9).all()
    nothing = SceneDetector().find(np.zeros((64, 64, 3), np.uint8), PROMPTS[0])
    assert not nothing.boxes and "background" in nothing.note


def test_the_detector_of_things_knows_its_icons(tmp_path):
    things = things_of(write_blocks(tmp_path, list(NAMES)[:40]))
    detector = ThingDetector(things)
    assert detector.classes == (*SHAPES, *list(NAMES)[:40])
    refuse_unproven(detector)
    pair = detector.known()[0]
    found = detector.find(pair.image_HW3, pair.prompt)
    assert sorted(found.boxes) == sorted(pair.prompt.names) and len(found.boxes) == 2
    assert set(sum(found.colours.values(), [])) <= {"none", *COLOURS}


class Blind(SceneDetector):
    """A detector that was loaded wrongly: it finds nothing."""

    name = "blind"

    def find(self, image_HW3: np.ndarray, prompt: Prompt) -> Found:
        return Found({})


def test_a_detector_that_fails_on_known_images_scores_nothing(drawn, tmp_path):
    refuse_unproven(SceneDetector())
    file = tmp_path / "found.jsonl"
    blind: Detector = Blind()
    with pytest.raises(ValueError, match=r"blind is wrong on 3 of 7 known images \(pair, 'both'"):
        detect(read_folder(drawn), blind, file, {})
    assert not file.exists()


def test_a_class_that_the_detector_does_not_know(tmp_path, painter):
    prompts = [Prompt("single_object", (Wanted("unicorn", 1),), "a photo of a unicorn")]
    draw(painter, prompts, tmp_path / "drawn", 1, seed=0)
    with pytest.raises(ValueError, match="asks for 'unicorn', which the detector scenes does not"):
        detect(read_folder(tmp_path / "drawn"), SceneDetector(), tmp_path / "found.jsonl", {})


def test_what_the_detector_cannot_judge_is_not_drawn(painter, tmp_path):
    save_bundle(tmp_path / "bundle", painter)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        json.dumps(Prompt("single_object", (Wanted("unicorn", 1),), "a photo of a unicorn").json())
    )
    words = ["run", tmp_path / "drawn", "--prompts", prompts, "--model", tmp_path / "bundle"]
    done = CliRunner().invoke(main, ["eval", "geneval", *map(str, words)])
    assert done.exit_code == 2 and "asks for 'unicorn'" in done.output
    assert not (tmp_path / "drawn").exists()


def command(*words: object) -> str:
    done = CliRunner().invoke(main, ["eval", "geneval", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_from_prompts_to_scores(painter, tmp_path):
    save_bundle(tmp_path / "bundle", painter)
    prompts, root = tmp_path / "prompts.jsonl", tmp_path / "drawn"
    out, sheet = tmp_path / "scores.json", tmp_path / "sheet.png"
    (tmp_path / "names").write_text("circle\nstar\n")
    command("prompts", prompts, "--number", 1, "--names", tmp_path / "names")
    asked = ("--prompts", prompts, "--samples", 2, "--model", tmp_path / "bundle")
    told = command("run", root, *asked, "--json", out, "--contact-sheet", sheet)
    report = json.loads(out.read_text())
    assert "geneval by scenes" in told and "seed 1000003" in " ".join(told.split())
    scores = report["scores"]
    assert scores["geneval_by_scenes"]["overall"]["value"] == 0  # random codes are no scene,
    assert scores["detector"]["unreadable"] == {
        "value": 1, "low": pytest.approx(0.785, abs=0.1), "high": 1, "n": 14,
    }  # fmt: skip
    assert {one["note"] for one in report["predictions"]} != {""}  # and it says so
    assert Image.open(sheet).width > 100
    again = tmp_path / "again.json"
    command("detect", root, tmp_path / "found.jsonl")
    command("score", tmp_path / "found.jsonl", "--prompts", prompts, "--json", again)
    assert json.loads(again.read_text())["scores"] == scores


def test_a_sheet_shows_the_images_that_were_looked_at_and_no_others(painter, drawn, tmp_path):
    file, sheet, fewer = (tmp_path / name for name in ("found.jsonl", "sheet.png", "fewer"))
    command("detect", drawn, file)
    command("score", file, "--images", drawn, "--contact-sheet", sheet)
    sheet.unlink()
    draw(painter, PROMPTS, fewer, samples=1, seed=5)
    others = {fewer: "00000/0001", Path(copytree(drawn, tmp_path / "changed")): "00002/0001"}
    sample_file(list(others)[1], 2, 1).write_bytes(sample_file(drawn, 0, 0).read_bytes())
    for folder, id in others.items():
        words = ("score", file, "--images", folder, "--contact-sheet", sheet)
        done = CliRunner().invoke(main, ["eval", "geneval", *map(str, words)])
        assert done.exit_code == 2 and f"of the image {id} of 'a photo of" in done.output
        assert "overall" not in done.output and not sheet.exists()


def test_images_that_somebody_else_drew_are_scored_under_their_name(drawn, tmp_path):
    """Name and revision as they are given, and the hash of all images; known folders say it."""
    words = ("detect", drawn, tmp_path / "found.jsonl", "--drawn-by", "them")
    told = CliRunner().invoke(main, ["eval", "geneval", *map(str, words)])
    assert told.exit_code != 0 and "says itself who drew it" in told.output
    (drawn / "drawn.jsonl").unlink()
    command(*words, "--drawn-revision", "v2")
    first = read_detections(tmp_path / "found.jsonl").recipe
    assert (first["model"], first["revision"], len(first["images"])) == ("them", "v2", 64)
    image = render(Scene(Background("plain", "grey"), ()), 64)
    Image.fromarray(image).save(sample_file(drawn, 1, 1))
    command("detect", drawn, tmp_path / "other.jsonl")
    other = read_detections(tmp_path / "other.jsonl").recipe
    assert other["images"] != first["images"] and "model" not in other
    assert report_of(read_detections(tmp_path / "found.jsonl"))["recipe"]["model"] == "them"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--detector", "mask2former"), "needs --weights, --clip"),
        (("--detector", "things"), "needs --things"),
        (("--clip", "."), "scenes takes no --clip"),
        (("--rewriter", "llama"), "need each other"),
        (("--device", "cuda:77"), "--device cuda:77"),
    ],
)
def test_options_that_do_not_fit(tmp_path, words, told):
    (tmp_path / "prompts.jsonl").write_text(json.dumps(PROMPTS[0].json()))
    asked = ["run", str(tmp_path / "drawn"), "--prompts", str(tmp_path / "prompts.jsonl")]
    done = CliRunner().invoke(main, ["eval", "geneval", *asked, *words])
    assert done.exit_code != 0 and told in done.output
    assert not (tmp_path / "drawn").exists()

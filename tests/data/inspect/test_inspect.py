"""`unimodal data inspect`: its numbers are those counted by hand, whatever the shards are like."""

import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image as PILImage
from tiny_tokenizers import of_patches

from unimodal.command import main
from unimodal.data import codes_member as codes
from unimodal.data.estimator import LengthEstimator
from unimodal.data.inspect.charts import SIZE
from unimodal.data.inspect.inspect import UNUSABLE, Inspection, inspect, summary
from unimodal.data.inspect.views import VIEWS, chosen, documents, write_views
from unimodal.data.packing import pack
from unimodal.data.shards import Shard
from unimodal.data.sizes import ImageRule
from unimodal.document import Image, Text
from unimodal.model import Model
from unimodal.sequence import Sequence

ROW = 64  # positions
PATCH = 8
PATCHES = of_patches(patch=PATCH)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", "inspect", *map(str, arguments)])


def png(width: int, height: int, shade: int = 0) -> bytes:
    stream = io.BytesIO()
    PILImage.new("RGB", (width, height), (shade, 90, 160)).save(stream, "PNG")
    return stream.getvalue()


def fields(**values: object) -> bytes:
    return json.dumps(values).encode()


def write(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, files in samples.items():
            for extension, content in files.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


TALK = [{"from": "human", "value": "<image>\nwhat is it?"}, {"from": "gpt", "value": "a wall"}]
FIRST = {
    "a": {"png": png(16, 16), "txt": b"a wall"},
    "b": {"png": png(24, 16), "txt": b"two walls and a door"},
    "c": {"0.png": png(16, 16), "json": fields(question="how many?", answer="two")},
    "d": {"txt": b"words alone"},
}
SECOND = {
    "e": {"0.png": png(16, 24), "json": fields(conversations=TALK)},
    "f": {"before.png": png(16, 16), "after.png": png(16, 16), "json": fields(edit="paint it")},
    "broken": {"json": b"{"},
    "odd": {"png": png(17, 16), "txt": b"no whole patches"},
    "no": {"png": b"no image", "txt": b"at all"},
    "bare": {"json": fields(a=1)},
    "barer": {"json": fields(b=1)},
    "empty": {"json": fields(parts=[])},
}


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / "s" / f"{n}.tar", it) for n, it in enumerate((FIRST, SECOND))]


@pytest.fixture
def estimator(tiny_model: Model) -> LengthEstimator:
    return LengthEstimator(tiny_model.sequencer, ROW, PATCHES)


@pytest.fixture
def found(shards: list[Path], estimator: LengthEstimator) -> Inspection:
    return inspect(shards, estimator)


def sequences(model: Model, path: Path) -> list[Sequence]:
    """Those of the sound samples of a shard, with their images encoded."""
    made = []
    shard = Shard(path)
    for number in range(len(shard)):
        if shard.key(number) in ("a", "b", "c", "d", "e", "f"):
            document = model.codec.encode_document(shard.document(number))
            made.append(model.sequencer.sequence(document))
    return made


# --- the numbers --------------------------------------------------------------------------------


def test_samples_are_counted_by_form_and_by_what_is_wrong(found: Inspection, shards: list[Path]):
    numbers = summary(found)
    assert numbers["shards"] == 2 and numbers["documents"] == 6
    assert numbers["bytes"] == sum(path.stat().st_size for path in shards)
    assert numbers["samples"] == len(FIRST) + len(SECOND)
    assert numbers["formats"] == {"caption": 2, "question": 1, "text": 1, "llava": 1, "edit": 1}
    assert numbers["empty"] == 1 and numbers["cut"] == 0 and numbers["left_out"] == {}
    bad = numbers["bad"]
    assert {reason: it["count"] for reason, it in bad.items()} == {
        "bad image": 2,
        "unknown format": 2,
        "wrong JSON": 1,
    }
    assert [entry["key"] for entry in bad["unknown format"]["first"]] == ["bare", "barer"]
    assert bad["wrong JSON"]["first"][0]["shard"] == str(shards[1])
    assert "17 x 16 pixels" in bad["bad image"]["first"][0]["message"]


def test_sizes_of_images_are_those_of_the_files(found: Inspection):
    images = summary(found)["images"]
    assert images["sizes"] == [[16, 16, 4], [16, 24, 1], [17, 16, 1], [24, 16, 1]]
    assert (images["count"], images["codes"], images["unreadable"]) == (8, 0, 1)
    assert images["different_sizes"] == 4
    assert (images["width"]["min"], images["width"]["max"]) == (16, 24)
    assert images["pixels"]["median"] == 256 and images["pixels"]["max"] == 384


def test_characters_are_those_of_the_texts(found: Inspection):
    texts = ["a wall", "two walls and a door", "how many?two", "words alone", "what is it?a wall",
             "paint it"]  # fmt: skip
    lengths = [len(text) for text in texts]
    assert found.characters == lengths
    characters = summary(found)["text"]["characters"]
    assert characters["mean"] == np.mean(lengths) and characters["max"] == max(lengths)
    assert characters["p95"] == np.percentile(lengths, 95)


def test_tokens_are_those_of_the_sequences(
    found: Inspection, shards: list[Path], tiny_model: Model
):
    made = [one for path in shards for one in sequences(tiny_model, path)]
    vocabulary = tiny_model.vocabulary
    text = [int(vocabulary.is_text(one.ids).sum()) for one in made]
    # beside its codes and ends of rows: begin, two sizes, end
    images = [sum(span.stop - span.start + 4 for span in one.spans) for one in made]
    assert found.text_n.tolist() == text
    assert found.images_n.tolist() == images
    assert found.tokens_n.tolist() == [len(one) for one in made]
    tokens = summary(found)["tokens"]
    assert tokens["total"] == sum(len(one) for one in made)
    assert tokens["special"] == tokens["total"] - sum(text) - sum(images)
    assert tokens["shares"]["text"] == sum(text) / tokens["total"]
    assert sum(tokens["shares"].values()) == pytest.approx(1)


def test_fill_of_rows_packed_and_padded(found: Inspection):
    lengths, rows = found.tokens_n, summary(found)["rows"]
    count = len(pack(lengths, ROW))
    assert rows["packed"] == count
    assert rows["packed_fill"] == lengths.sum() / (count * ROW)
    assert rows["padded_fill"] == pytest.approx(lengths.sum() / (len(lengths) * lengths.max()))
    assert rows["packed_over_padded"] == rows["packed_fill"] / rows["padded_fill"]


def test_pieces_of_long_samples_are_documents(tmp_path: Path, estimator: LengthEstimator):
    text = "a wall and a door\n" * 20
    large = {"png": png(80, 80), "json": fields(texts=["hi", None], images=[None, "png"])}
    path = write(tmp_path / "long.tar", {"a": {"txt": text.encode()}, "b": large})
    found = inspect([path], estimator)
    numbers = summary(found)
    assert numbers["cut"] == 1 and numbers["samples"] == 2
    assert numbers["left_out"] == {"an image longer than a row": 1}
    assert numbers["positions"]["max"] <= ROW
    assert sum(found.characters) == len(text.strip()) + len("hi\n")
    assert (found.text_n + found.images_n + 2 == found.tokens_n).all()


def test_a_rule_measures_images_as_they_will_be_read(tmp_path: Path, tiny_model: Model):
    path = write(tmp_path / "odd.tar", {"a": {"png": png(400, 100), "txt": b"wide"}})
    found = inspect(
        [path], LengthEstimator(tiny_model.sequencer, ROW, PATCHES, ImageRule(256, PATCH, 4.0))
    )
    assert found.sizes == {(400, 100): 1}, "sizes are those of the files"
    assert found.images_n.tolist() == [4 + (4 + 1)], "one row of four codes"


def test_codes_are_counted_and_shown(tmp_path: Path, tiny_model: Model, estimator: LengthEstimator):
    (image,) = tiny_model.codec.encode([Image(np.full((16, 16, 3), 200, np.uint8))])
    content = codes.to_bytes(image, tiny_model.image_tokenizer.num_codes)
    path = write(tmp_path / "c.tar", {"a": {"codes": content, "txt": b"a wall"}})
    found = inspect([path], estimator)
    assert found.codes == 1 and not found.sizes
    (sheet, *_) = write_views(found, tiny_model.codec, tmp_path / "look", 4)
    decoded = np.asarray(PILImage.open(sheet))
    assert (decoded < 250).all(axis=2).sum() >= 16 * 16 * 0.5


# --- damage -------------------------------------------------------------------------------------


def test_damaged_shards_are_told_of(tmp_path: Path, shards: list[Path], estimator: LengthEstimator):
    cut = tmp_path / "s" / "cut.tar"
    cut.write_bytes(shards[0].read_bytes()[:5000])
    (tmp_path / "s" / "nothing.tar").touch()
    (tmp_path / "s" / "text.tar").write_text("this is no tar at all" * 100)
    write(tmp_path / "s" / "hopeless.tar", {"x": {"json": b"["}, "y": {"json": b"["}})
    found = inspect(sorted((tmp_path / "s").glob("*.tar")), estimator)
    numbers = summary(found)
    assert numbers["documents"] > 6
    assert numbers["bad"][UNUSABLE]["count"] == 1
    assert "nothing.tar" in numbers["bad"][UNUSABLE]["first"][0]["shard"]
    assert numbers["bad"]["wrong JSON"]["count"] == 3
    assert numbers["bad"]["damaged tar"]["count"] >= 2


def test_a_whole_set_without_a_sound_sample(
    tmp_path: Path, tiny_model: Model, estimator: LengthEstimator
):
    path = write(tmp_path / "bad.tar", {"x": {"json": b"["}})
    found = inspect([path], estimator)
    numbers = summary(found)
    assert numbers["documents"] == 0 and numbers["positions"] is None and numbers["rows"] is None
    assert numbers["bad"]["wrong JSON"]["count"] == 1
    for view in write_views(found, tiny_model.codec, tmp_path / "look", 4):
        assert PILImage.open(view).width == SIZE[0]
    assert run(path).exit_code == 0


def test_an_image_that_is_damaged_behind_its_header_is_said_to_be(
    tmp_path: Path, tiny_model: Model, estimator: LengthEstimator
):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    stream = io.BytesIO()
    PILImage.fromarray(noise).save(stream, "PNG")
    path = write(tmp_path / "a.tar", {"a": {"png": stream.getvalue()[:300], "txt": b"a wall"}})
    found = inspect([path], estimator)
    assert found.sizes == {(16, 16): 1}
    (shown,) = documents(found, tiny_model.codec, 4)
    name, instead, words = (part.text for part in shown.parts if isinstance(part, Text))
    assert name == "[caption] a, a" and "damaged" in instead and words == "a wall"


def test_an_empty_folder_is_an_error(tmp_path: Path):
    done = run(tmp_path)
    assert done.exit_code == 2 and "holds no .tar shard" in done.stderr


# --- what is shown ------------------------------------------------------------------------------


def test_the_table_and_the_json_agree(shards: list[Path]):
    done = run(shards[0].parent, "--json", "--sequence-length", 256)
    assert done.exit_code == 0, done.output
    numbers = json.loads(done.stdout)
    words = " ".join(done.stderr.replace("│", " ").split())
    assert words.startswith("what there is")
    assert f"{numbers['shards']:,}, {numbers['bytes']:,} bytes" in words
    bad = sum(entry["count"] for entry in numbers["bad"].values())
    assert f"{numbers['samples']:,}, {bad} bad, 1 empty" in words
    for count in (numbers["tokens"]["total"], numbers["tokens"]["text"]):
        assert f"{count:,}" in words
    assert f"{numbers['rows']['packed']:,} of 256; {numbers['rows']['packed_fill']:.1%}" in words
    assert all(f"{count} {format}" in words for format, count in numbers["formats"].items())
    assert all(reason in words for reason in numbers["bad"])
    assert (
        numbers["settings"]["sequence_length"] == 256
        and numbers["settings"]["target_pixels"] == 64 * 64
    )


def test_json_alone_stands_on_standard_output(shards: list[Path], tmp_path: Path):
    done = run(shards[0].parent, "--json", "--output", tmp_path / "look")
    assert json.loads(done.stdout)["shards"] == len(shards)
    assert str(tmp_path / "look" / VIEWS[0]) in done.stderr.replace("\n", "")
    plain = run(shards[0].parent)
    assert "what there is" in plain.stdout and plain.stderr.strip() == ""


def test_a_folder_is_not_called_like_an_image(shards: list[Path], tmp_path: Path):
    done = run(shards[0].parent, "--output", tmp_path / "look.png")
    assert done.exit_code == 2 and "look.png: the charts are several files" in done.stderr
    assert not (tmp_path / "look.png").exists()


def test_nothing_of_a_shard_reaches_the_terminal_as_a_command(tmp_path: Path):
    path = write(tmp_path / "s.tar", {"\x1b[31m[red]": {"json": b"["}, "a": {"txt": b"hi"}})
    done = run(path)
    assert done.exit_code == 0 and "\x1b" not in done.stdout and "[red]" in done.stdout


def test_images_are_written(shards: list[Path], tmp_path: Path):
    folder = tmp_path / "look"
    done = run(shards[0].parent, "--output", folder, "--samples", 4)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in folder.iterdir()) == sorted(VIEWS)
    for name in VIEWS:
        image = PILImage.open(folder / name)
        assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 2, f"{name} is blank"
        assert str(folder / name) in done.stdout.replace("\n", "")
    sizes = {name: PILImage.open(folder / name).size for name in VIEWS}
    assert sizes["positions.png"] == sizes["text_tokens.png"] == sizes["image_sizes.png"] == SIZE
    assert sizes["bad.png"][0] == SIZE[0]
    shown = np.asarray(PILImage.open(folder / "samples.png"))
    assert (shown == (0, 90, 160)).all(axis=2).any(), "the images of the samples"


def test_shown_samples_are_spread_over_all_shards(found: Inspection):
    spread = [(path.name, number) for path, number in chosen(found, 3)]
    assert spread[0] == ("0.tar", 0) and spread[-1] == ("1.tar", 1) and len(spread) == 3
    assert len(list(chosen(found, 100))) == 6


# --- how samples are read -----------------------------------------------------------------------


def test_fields_formats_and_files_are_named_as_those_of_a_source(tmp_path: Path) -> None:
    """Without the options the shard is what it is: nothing of a known format."""
    words = fields(my_words="a wall", other=1)
    files = {"png": png(16, 16), "mask.png": png(8, 8), "json": words}
    path = write(tmp_path / "s" / "0.tar", {key: files for key in "abc"})

    def numbers(*options: str) -> dict:
        result = run(path, "--json", *options)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    bare = numbers()
    assert bare["formats"] == {} and bare["bad"]["unknown format"]["count"] == 3
    assert "sources.NAME.fields" in bare["bad"]["unknown format"]["first"][0]["message"]
    named = ("--fields", "caption=my_words")
    message = numbers(*named)["bad"]["wrong fields"]["first"][0]["message"]
    assert "a caption is of one image, not of .mask.png, .png" in message
    assert "sources.NAME.ignore" in message
    both = numbers(*named, "--ignore", "mask.png", "--output", str(tmp_path / "look"))
    assert both["formats"] == {"caption": 3} and both["bad"] == {}
    assert both["images"]["count"] == 3 and both["text"]["characters"]["max"] == len("a wall")
    assert numbers("--format", "caption")["bad"]["wrong fields"]["count"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fields", "caption"], "--fields caption: ROLE=FIELD"),
        (["--fields", "=words"], "--fields =words: ROLE=FIELD"),
        (["--fields", "cap=words"], "--fields cap: the roles are "),
        (["--format", "text", "--fields", "caption=w"], "--fields caption: the format text reads"),
        (["--format", "page"], "--format 'page': one of document, "),
        (["--ignore", ".cls"], "--ignore '.cls': extensions without their first dot"),
        (["--ignore", "cls"], "no sample of .* has a file .cls"),
    ],
)
def test_impossible_ways_to_read_are_refused(shards, options, message: str) -> None:
    result = run(shards[0], *options)
    assert result.exit_code == 2
    assert re.search(re.escape(message).replace(r"\.\*", ".*"), " ".join(result.output.split()))

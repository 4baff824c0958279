"""Which files of a sample are its images, in which order; none is lost without a word."""

import json
from itertools import islice
from pathlib import Path

import pytest
from benchmarks.faults import Files, Means, caption, image, sequencer, write_tar
from click.testing import CliRunner

from unimodal.command import main
from unimodal.data.estimator import LengthEstimator
from unimodal.data.formats import Sample, SampleError, detect_format, document, variants
from unimodal.data.image_members import image_members, in_order, natural
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.measured import Measured, measure_shard
from unimodal.data.sources import SourceConfig
from unimodal.data.tar import ShardError
from unimodal.document import Image
from unimodal.tokenizer.autoencoder import TokenizerConfig

QUESTION = {"question": "which?", "answer": "red"}


def sample(fields: object = None, **files: bytes) -> Sample:
    named = {name.replace("_", "."): content for name, content in files.items()}
    if fields is not None:
        named["json"] = json.dumps(fields).encode()
    return Sample("folder/key", named)


def shown(found: Sample) -> list[str]:
    """The extensions of the images of a sample's document, in order."""
    parts = document(found, detect_format(found)).parts
    return [part.stored.name for part in parts if isinstance(part, Image)]


def measured(path: Path, samples: dict[str, Files], **more: object) -> Measured:
    write_tar(path, samples)
    return measure_shard(path, LengthEstimator(sequencer(), 256, TokenizerConfig(), **more))


# --- what is an image ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jfif", "jpe", "avif", "img", "0.ppm", "picture", "jpg_large"])
def test_images_of_a_tar_are_told_by_their_bytes(name: str) -> None:
    kinds = {"avif": "AVIF", "0.ppm": "PPM", "picture": "WEBP"}
    content = image(kinds.get(name, "JPEG"))
    found = Sample("k", {"json": json.dumps(QUESTION).encode(), name: content})
    assert found.images == [name] and shown(found) == [name]
    assert detect_format(Sample("k", {"txt": b"words", name: content})) == "caption"


def test_words_are_no_image_whatever_they_begin_with() -> None:
    files = {"txt": b"P6 10 20 255 is how it begins", "json": b"[]", "0.txt": image()}
    assert image_members(files) == []


def test_an_image_that_cannot_be_read_makes_its_sample_bad(tmp_path: Path) -> None:
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    found = measured(
        tmp_path / "a.tar",
        {
            "a": {"json": json.dumps(QUESTION).encode(), "heic": heic},
            "b": {"txt": b"words", "svg": b"<svg/>"},
            "c": {"txt": b"words", "jxl": b"\xff\x0a" + bytes(40)},
            "d": {"json": json.dumps(QUESTION).encode(), "avif": b""},
            "e": {"txt": b"words", "jfif": b"cut"},
            "f": caption("words", image()),
        },
    )
    assert [(bad["key"], bad["reason"]) for bad in found.bad] == [(k, "bad image") for k in "abcde"]
    assert found.notes["format caption"] == 1 and "format text" not in found.notes


def test_twenty_questions_and_texts_beside_jpegs_of_another_name_keep_them(tmp_path: Path) -> None:
    fields = json.dumps(QUESTION).encode()
    made = {f"q{k}": {"json": fields, "jfif": image("JPEG")} for k in range(20)}
    made |= {f"t{k}": {"txt": b"words", "avif": image("AVIF")} for k in range(20)}
    found = measured(tmp_path / "a.tar", made)
    assert found.bad == [] and found.notes["format question"] == found.notes["format caption"] == 20
    assert (found.records["images"] > 0).all()


# --- what nobody used ---------------------------------------------------------------------------


def test_files_that_nobody_used_are_counted_by_extension(tmp_path: Path) -> None:
    fields = json.dumps(QUESTION).encode()
    found = measured(
        tmp_path / "a.tar",
        {
            "a": {**caption("words", image()), "json": b'{"url": "x"}', "npy": b"1", "cls": b"1"},
            "b": {"0.png": image(), "json": fields, "txt": b"words", "0.cls": b"1", "1.cls": b"1"},
            "c": {**caption("words", image()), "en.txt": b"words"},
        },
    )
    assert found.bad == []
    unused = {name: count for name, count in found.notes.items() if name.startswith("unused")}
    assert unused == {
        "unused: .npy": 1, "unused: .cls": 3, "unused: .txt": 1, "unused: .en.txt": 1
    }  # fmt: skip


@pytest.mark.parametrize("files", [{"txt": b"words"}, {"json": json.dumps(QUESTION).encode()}])
def test_a_file_of_an_unknown_kind_beside_words_alone_is_bad(tmp_path: Path, files: Files) -> None:
    made = {"a": {**files, "xyz": b"1", "0.cls": b"1"}, "b": caption("words", image())}
    found = measured(tmp_path / "a.tar", made)
    (bad,) = found.bad
    assert (bad["key"], bad["reason"]) == ("a", "unknown file")
    assert bad["message"] == (
        ".xyz, .0.cls: beside words without an image, and no image that is known; leave it out by "
        "sources.NAME.ignore=[xyz, 0.cls]"
    )
    for ignore in (("xyz", "cls"), ("xyz", "0.cls")):
        assert measured(tmp_path / "a.tar", made, ignore=ignore).bad == []


def test_ignore_leaves_images_out_too(tmp_path: Path) -> None:
    made = {"a": {"jpg": image("JPEG"), "mask.png": image(), "txt": b"words"}}
    (bad,) = measured(tmp_path / "a.tar", made).bad
    assert "a caption is of one image, not of .jpg, .mask.png; leave" in bad["message"]
    found = measured(tmp_path / "a.tar", made, ignore=("mask.png",))
    assert found.bad == [] and found.notes["format caption"] == 1
    problems = SourceConfig("x", ignore=(".mask.png", "")).problems()
    assert problems == ["ignore '.mask.png', '': extensions without their first dot"]


def test_a_source_ignores_when_rows_are_built_too(tmp_path: Path) -> None:
    made = {f"k{k}": {**caption(f"#{k};", image(shade=k)), "mask.png": image()} for k in range(20)}
    write_tar(tmp_path / "a.tar", made)
    source = SourceConfig(str(tmp_path), ignore=("mask.png",))
    config = LoaderConfig(sequence_length=256, batch_rows=8, window_rows=64)
    loader = Loader({"all": source}, sequencer(), Means(), config)
    for _ in islice(loader, 3):
        pass
    assert loader.seen.documents > 0 and not loader.seen.bad
    other = SourceConfig(str(tmp_path), ignore=("mask.png", "cls"))
    with pytest.raises(ShardError, match=r"sources.all.ignore: no sample of .* has a file .cls"):
        Loader({"all": other}, sequencer(), Means(), config)


def test_inspect_names_unused_files(tmp_path: Path) -> None:
    made = {f"k{k}": {**caption("words", image()), "npy": b"1", "cls": b"2"} for k in range(3)}
    write_tar(tmp_path / "a.tar", made | {"._k": {"png": b"x"}})
    result = CliRunner().invoke(main, ["data", "inspect", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    numbers = json.loads(result.output.splitlines()[-1])
    assert numbers["unused_files"] == {".npy": 3, ".cls": 3, "hidden": 1}
    assert "3 .cls, 3 .npy, 1 hidden" in result.output


@pytest.mark.parametrize(
    "files",
    [
        {"v2.png": image(), "v2.txt": b"words"},
        {"001.jpg": image("JPEG"), "001.txt": b"one", "002.jpg": image("JPEG"), "002.txt": b"two"},
        {"5_cat.jpg": image("JPEG"), "5_cat.json": json.dumps(QUESTION).encode()},
    ],
)
def test_dots_before_the_extension_are_said_to_be_the_reason(files: Files) -> None:
    found = Sample("photo", files)
    dotted = next(name for name in files if name.endswith(("txt", "json")))
    with pytest.raises(SampleError) as error:
        document(found, detect_format(found))
    assert str(error.value).endswith(
        f"a key ends at the first dot, so photo.{dotted} is .{dotted} of photo: write the dots "
        "before the extension as _"
    )


# --- their order --------------------------------------------------------------------------------


def test_numbers_in_names_count_as_numbers() -> None:
    names = ["10.png", "2.png", "0.png", "1.png", "a10.png", "a9.png", "page 2.png", "01.png"]
    expected = ["0.png", "01.png", "1.png", "2.png", "10.png", "a9.png", "a10.png", "page 2.png"]
    assert sorted(names, key=natural) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"conversations": [{"from": "human", "value": "<image>" * 11 + "which?"},
                           {"from": "gpt", "value": "it"}]},
        QUESTION,
    ],
)  # fmt: skip
def test_eleven_images_stand_in_their_order(fields: dict) -> None:
    files = {f"{n}_png": image(shade=n) for n in (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9)}
    assert shown(sample(fields, **files)) == [f"{n}.png" for n in range(11)]


LISTS = {
    "names": (["b.png", "a.png"], ["a.png", "b.png"], ["b.png", "a.png"]),
    "whole names": (["key.1.png", "folder/key.0.png"], ["0.png", "1.png"], ["1.png", "0.png"]),
    "another format": (["1.jpg", "0.jpg"], ["0.webp", "1.webp"], ["1.webp", "0.webp"]),
    "codes": (["1.png", "0.png"], ["0.codes", "1.codes"], ["1.codes", "0.codes"]),
    "capitals": (["B.PNG", "a.Png"], ["a.png", "b.png"], ["b.png", "a.png"]),
    "files before": (["coco/7.jpg", "coco/3.jpg"], ["0.jpg", "1.jpg"], ["0.jpg", "1.jpg"]),
    "counted from one": (["x.jpg", "y.jpg"], ["1.jpg", "2.jpg"], ["1.jpg", "2.jpg"]),
    "a single one": (["coco/7.jpg"], ["jpg"], ["jpg"]),
    "shown again": (["a.png", "b.png", "a.png"], ["a.png", "b.png"], ["a.png", "b.png", "a.png"]),
}


@pytest.mark.parametrize(("listed", "files", "expected"), LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("field", ["image", "images"])
def test_a_list_in_json_is_obeyed(
    field: str, listed: list[str], files: list[str], expected: list[str]
) -> None:
    contents = {name.replace(".", "_"): image() for name in files}
    found = sample({**QUESTION, field: listed}, **contents)
    assert found.images == expected and shown(found) == expected
    if len(listed) == 1:
        assert sample({**QUESTION, field: listed[0]}, **contents).images == expected


@pytest.mark.parametrize(
    ("listed", "files"),
    [
        (["0.png"], ["0.png", "1.png"]),
        (["0.png", "1.png", "2.png"], ["0.png", "1.png"]),
        (["0.png", "x.png"], ["0.png", "1.png"]),
        (["x.png", "y.png"], ["a.png", "b.png"]),
        (["x.png", "y.png"], ["0.png", "2.png"]),
        (["a.png"], []),
        ([{"path": "a.png"}, {"path": "b.png"}], ["a.png"]),
    ],
)
def test_a_list_that_disagrees_is_an_error(listed: list, files: list[str]) -> None:
    contents = {name.replace(".", "_"): image() for name in files}
    found = sample({**QUESTION, "image": listed}, **contents)
    with pytest.raises(SampleError, match=r"\.json lists the images .*, the sample has ") as error:
        shown(found)
    assert error.value.reason == "other images"


def test_words_whose_json_names_an_image_are_no_plain_text() -> None:
    found = sample({"image": "gone.jpg", "text": "a caption"})
    with pytest.raises(SampleError, match="lists the images gone.jpg, the sample has none"):
        document(found, detect_format(found))


@pytest.mark.parametrize(
    "fields",
    [
        {"img_path": "val2014/COCO_1.JPG", **QUESTION},
        {"url": "https://a.com/b.jpeg?x=1", "text": "a caption"},
        {"file": "a b.heic", "messages": [{"role": "user", "content": "hi"}]},
        {"img": "COCO_123", **QUESTION},
        {"Photos": ["1.png", "2.png"], **QUESTION},
        {"frames": [{"path": "1.png"}], "messages": [{"role": "user", "content": "hi"}]},
        {"images": ["data:image/png;base64,AAAA"], **QUESTION},
    ],
)
def test_words_that_have_lost_their_image_are_not_trained_alone(
    tmp_path: Path, fields: dict
) -> None:
    made = {"a": {"json": json.dumps(fields).encode()}, "b": {"txt": b"words"}}
    (bad,) = measured(tmp_path / "a.tar", made).bad
    assert (bad["key"], bad["reason"]) == ("a", "missing member")
    format = "question" if "question" in fields else "chat" if "messages" in fields else "text"
    assert bad["message"].endswith(f"say sources.NAME.format={format} for the words alone")
    alone = measured(tmp_path / "a.tar", {"a": made["a"]}, format=format)
    assert alone.bad == [] and len(alone.records) > 0


def test_words_about_files_and_pages_are_words() -> None:
    for fields in (
        {"text": "photo.jpg"}, {"text": "see it", "url": "https://a.com/b.html"},
        {"question": "which?", "answer": "a.png"}, {"text": "words", "path": "pages/1", "img": ""},
        {"question": "which?", "choices": ["a.png", "b.png"], "answer": 1, "image": [None]},
    ):  # fmt: skip
        assert document(sample(fields), detect_format(sample(fields))).parts


@pytest.mark.parametrize("field", ["Image", "IMAGES", "images"])
def test_a_list_by_its_name_in_any_case(field: str) -> None:
    files = {"0_png": image(), "1_png": image()}
    assert sample({**QUESTION, field: ["1.png", "0.png"]}, **files).images == ["1.png", "0.png"]
    lost = sample({"conversations": [{"from": "human", "value": "hi"}], field: ["1.png"]})
    with pytest.raises(SampleError, match="has none: store them beside it, or leave the list out"):
        detect_format(lost)


@pytest.mark.parametrize("value", [None, "", [], [None], 3, True, "data:image/png;base64,AAAA"])
def test_what_is_no_list_of_names_says_nothing(value: object) -> None:
    assert sample({**QUESTION, "image": value}, **{"1_png": image(), "0_png": image()}).images == [
        "0.png", "1.png"
    ]  # fmt: skip


def test_images_of_edits_stand_by_their_role() -> None:
    fields = {"image": "original.png", "instruction": "redder"}
    found = sample(fields, **{"after_jfif": image("JPEG"), "before_jfif": image("JPEG")})
    assert detect_format(found) == "edit" and shown(found) == ["before.jfif", "after.jfif"]
    assert variants(found, "edit") == 1


def test_in_order_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="has none"):
        in_order([], ["a.png"], "key")

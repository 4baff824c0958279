"""The page of results: whole, safe, the same each time, and readable in a browser."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from browser import screenshot
from click.testing import CliRunner
from PIL import Image
from result_files import geneval, geneval_prompts, scenes, vqa

from unimodal.command import main
from unimodal.eval.geneval.folder import sample_file, write_prompt
from unimodal.eval.intervals import Estimate, mean, mean_of, proportion
from unimodal.eval.predictions import PredictionsFile
from unimodal.eval.results.page import page
from unimodal.eval.results.plot import Row, axis_of, plot
from unimodal.eval.results.stored import names_of, read_result, read_results
from unimodal.eval.score import recipe, write

VOID = {"meta", "img", "br", "line", "circle"}


class Outline(HTMLParser):
    """Checks that tags are balanced; keeps texts, tags and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def outline(html: str) -> Outline:
    found = Outline()
    found.feed(html)
    assert found.open == []
    return found


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    return [
        scenes(tmp_path / "one.json", lambda n: n % 2 == 0),
        scenes(tmp_path / "two.json", lambda n: n % 3 == 0, guidance=1.0),
        vqa(tmp_path / "three.json", lambda n: True),
    ]


def test_no_score_and_no_word_of_a_recipe_is_missing(runs):
    results = read_results(runs)
    found = outline(page(results))
    for result in results:
        flat = {**result.recipe, **result.recipe["versions"]}
        del flat["versions"]
        for name, value in flat.items():
            assert name in found.text and str(value) in found.text, name
    overall = results[0].scores["drawing"]["overall"]
    assert f"{overall.low:.3f} to {overall.high:.3f}, n {overall.n}" in found.text
    assert "All asked the same: prompts " in found.text
    assert [tag for tag, _ in found.tags].count("section") == 3


def test_nothing_comes_from_elsewhere(runs):
    html = page(read_results(runs))
    found = outline(html)
    assert {"script", "link", "iframe", "a"} & {tag for tag, _ in found.tags} == set()
    sources = [attrs["src"] or "" for _, attrs in found.tags if "src" in attrs]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "url(" not in html and "@import" not in html and "http://" not in html
    policy = next(attrs["content"] for _, attrs in found.tags if "http-equiv" in attrs)
    assert policy is not None and policy.startswith("default-src 'none'")


def test_words_of_results_are_no_html(tmp_path):
    nasty = '"><script>alert(1)</script>'
    report = {
        "scores": {nasty: {"overall": proportion(1, 2), nasty: proportion(1, 1)}},
        "recipe": recipe(evaluation=nasty, model=nasty),
        "words": [nasty],
        "predictions": [],
    }
    write(tmp_path / "nasty.json", report)
    html = page([read_result(tmp_path / "nasty.json")])
    assert "<script" not in html
    assert nasty.replace("_", " ") in outline(html).text


def test_equal_results_give_equal_bytes(runs):
    assert page(read_results(runs)) == page(read_results(runs))


def test_other_prompts_are_told(tmp_path):
    runs = [
        scenes(tmp_path / "one.json", lambda n: True),
        scenes(tmp_path / "two.json", lambda n: True, samples=4),
    ]
    text = outline(page(read_results(runs))).text
    assert "They did not ask the same" in text
    for result in read_results(runs):
        assert f"{result.recipe['prompts'][:12]} ({result.path.stem})" in text


# --- plots --------------------------------------------------------------------------------------


def test_places_are_values():
    svg = plot([Row("a & b", (Estimate(0.5, 0.25, 0.75, 9), Estimate(1.0, None, None, 1)))], "t")
    found = outline(svg)
    (bar,) = [attrs for _, attrs in found.tags if attrs.get("class") == "bar"]
    dots = [attrs["cx"] for _, attrs in found.tags if attrs.get("class") == "dot"]
    assert (bar["x1"], bar["x2"], dots) == ("26.50%", "73.50%", ["50.00%", "97.00%"])
    assert "a & b" in found.text and "0.500 · 1.000" in found.text


def test_axes_hold_all_values_between_round_numbers():
    source = np.random.default_rng(4)
    for low, width in zip(source.normal(0, 30, 200), 10 ** source.uniform(-4, 4, 200), strict=True):
        axis = axis_of([low, low + width])
        assert axis.low <= low + 1e-9 * abs(low) and low + width <= axis.high + 1e-9 * abs(
            axis.high
        )
        assert 2 <= len(axis.ticks) <= 8
    assert axis_of([0.2, 0.9]).ticks == (0, 0.25, 0.5, 0.75, 1)
    assert axis_of([-0.1, 0.3]).low < 0 < axis_of([-0.1, 0.3]).high
    assert axis_of([33.0, 33.0]).low < axis_of([33.0, 33.0]).high


def test_a_mean_of_shares_stays_on_the_axis_of_shares(tmp_path):
    whole = mean_of([proportion(1, 1)] * 11)
    assert whole.value is not None and whole.value > 1, "sums of floats pass 1"
    scores = {"questions": {"overall": whole, "count": proportion(1, 1)}}
    write(tmp_path / "a.json", {"scores": scores, "recipe": recipe(evaluation="x"),
                                "predictions": []})  # fmt: skip
    tags = outline(page([read_result(tmp_path / "a.json")])).tags
    assert [tag for tag, _ in tags].count("svg") == 1


def test_what_was_not_measured_has_no_plot():
    assert plot([Row("nothing", (Estimate(None, None, None, 0),))], "t") == ""
    assert "–" in plot([Row("some", (None, mean([1.0, 2.0])))], "t")


# --- images beside ------------------------------------------------------------------------------


def test_a_sheet_of_the_same_name_is_shown(tmp_path):
    run = scenes(tmp_path / "one.json", lambda n: True)
    Image.new("RGB", (90, 60), (10, 200, 30)).save(tmp_path / "one.png")
    Image.new("RGB", (90, 60)).save(tmp_path / "other.png")
    (image,) = [attrs for tag, attrs in outline(page([read_result(run)])).tags if tag == "img"]
    assert (image["width"], image["height"]) == ("90", "60")


def test_a_sheet_in_the_folder_belongs_to_its_only_result(tmp_path):
    run = scenes(tmp_path / "one.json", lambda n: True)
    Image.new("RGB", (90, 60)).save(tmp_path / "contact_sheet.png")
    (tmp_path / "of_others.json").write_text('{"scores": NaN}')  # which nobody named
    (tmp_path / "latin.json").write_bytes(b'"\xe9"')
    assert "contact_sheet.png" in page([read_result(run)])
    scenes(tmp_path / "two.json", lambda n: True)
    assert "contact_sheet.png" not in page([read_result(run)])


def test_a_broken_sheet_is_an_error(tmp_path):
    run = scenes(tmp_path / "one.json", lambda n: True)
    (tmp_path / "one.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    with pytest.raises(ValueError, match="one.png"):
        page([read_result(run)])


def drawn(root: Path, recipe: dict, samples: int = 2) -> Path:
    for number, prompt in enumerate(geneval_prompts()):
        write_prompt(root, number, prompt)
        for sample in range(samples):
            image = Image.new("RGB", (32, 32), (40 * number, 100 * sample, 9))
            image.save(sample_file(root, number, sample))
    with PredictionsFile(root / "drawn.jsonl", recipe):
        return root


def test_images_that_were_scored_are_shown_and_no_others(tmp_path):
    run = geneval(tmp_path / "g.json", lambda n: n < 5, model="m", seed=1, guidance=3.0)
    drawn(tmp_path / "other", {"model": "m", "seed": 1, "guidance": 1.0})
    drawn(tmp_path / "fewer", {"model": "m", "seed": 1, "guidance": 3.0}, samples=1)
    assert "<figure" not in page([read_result(run)])
    drawn(tmp_path / "mine", {"model": "m", "seed": 1, "guidance": 3.0})
    found = outline(page([read_result(run)]))
    shown = [attrs["alt"] for tag, attrs in found.tags if tag == "img"]
    result = read_result(run)
    firsts = [
        p["prompt"]
        for kind in ("single_object", "counting")
        for p in [p for p in result.predictions if p["kind"] == kind][:6]
    ]
    assert shown == firsts and found.text.count("right") >= 5
    copytree(tmp_path / "mine", tmp_path / "copy")
    twice = page([read_result(run)])
    assert "<figure" not in twice and "Images of several folders fit: copy, mine." in twice


# --- what is refused ----------------------------------------------------------------------------


def refused(*words: str, told: str) -> None:
    done = CliRunner().invoke(main, ["eval", "report", *words, "--output", "never.html"])
    assert done.exit_code == 2 and told in done.output.replace("\n", " "), done.output
    assert done.output.startswith("error: ") and not Path("never.html").exists()


def test_what_is_no_result_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    refused("empty", told="empty has no results")
    files = {
        "cut.json": ('{"scores": {', "cannot be read"),
        "deep.json": ("[" * 100_000, "cannot be read"),
        "latin.json": (b"\xe9", "cannot be read"),
        "other.json": ("[1]", "is no result of `unimodal eval`: it has no scores, recipe"),
        "lines.jsonl": ('{"recipe": {}}\n', "holds predictions and no scores"),
    }
    for name, (content, told) in files.items():
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        refused(name, told=told)


@pytest.mark.parametrize(
    ("estimate", "told"),
    [
        ('{"value": NaN, "low": 0, "high": 1, "n": 3}', "holds NaN"),
        ('{"value": 1e999, "low": 0, "high": 1, "n": 3}', "is no value with its interval"),
        ('{"value": "0.5", "low": 0, "high": 1, "n": 3}', "is no value with its interval"),
        ('{"value": 0.5, "low": 0.6, "high": 1, "n": 3}', "outside 0.6 to 1"),
        ('{"value": 0.5, "low": 0, "high": 1, "n": -3}', "is no value with its interval"),
        ("0.5", "and no scores by name"),
    ],
)
def test_scores_that_are_none_are_refused(tmp_path, monkeypatch, estimate, told):
    monkeypatch.chdir(tmp_path)
    text = f'{{"scores": {{"a": {estimate}}}, "recipe": {{"evaluation": "x"}}, "predictions": []}}'
    Path("bad.json").write_text(text)
    refused("bad.json", told=told)


def test_a_folder_stands_for_its_results(runs, tmp_path):
    (tmp_path / "notes.json").write_text('{"not": "a result"}')
    assert [result.path.name for result in read_results([tmp_path, runs[0]])] == [
        "one.json", "three.json", "two.json",
    ]  # fmt: skip


def test_names_are_as_short_as_they_can_be():
    assert names_of([Path("x/a.json"), Path("x/b.json")]) == ["a", "b"]
    assert names_of([Path("x/a.json"), Path("y/a.json")]) == ["x/a", "y/a"]
    assert names_of([Path("x/a.json"), Path("x/a.jsonl")]) == ["x/a.json", "x/a.jsonl"]
    assert names_of([Path("."), Path("x")]) == [Path.cwd().name, "x"]


# --- in a browser -------------------------------------------------------------------------------


def test_a_browser_shows_it_light_and_dark_wide_and_narrow(tmp_path):
    runs = [
        geneval(tmp_path / f"{name}.json", lambda n, least=least: n > least, samples=1)
        for name, least in (("one", 3), ("two", 5))
    ]
    output = tmp_path / "page.html"
    words = ["eval", "report", *map(str, runs), "--output", str(output)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0 and "2 results" in done.output
    assert re.fullmatch(r"(?s)<!doctype html>.*</html>\n", output.read_text())
    light = screenshot(output.as_uri(), tmp_path, (1000, 1500))
    dark = screenshot(output.as_uri(), tmp_path, (500, 1500), dark=True)
    assert light.mean() > 200 and dark.mean() < 80
    for shown in (light, dark):  # dots of both runs are there, and nothing leaves the page
        blue, green, red = shown[..., 2].astype(int), shown[..., 1], shown[..., 0].astype(int)
        assert ((blue - red > 100) & (green > 60)).sum() > 200 and (red - blue > 100).sum() > 200
        assert len(np.unique(shown[:, -12:].reshape(-1, 3), axis=0)) == 1


def test_the_json_of_a_comparison_is_shown_with_its_words(runs, tmp_path):
    words = ["eval", "compare", str(runs[0]), str(runs[1]), "--json", f"{tmp_path}/d.json"]
    assert CliRunner().invoke(main, words).exit_code == 0
    text = outline(page([read_result(tmp_path / "d.json")])).text
    told = json.loads((tmp_path / "d.json").read_text())["words"]
    assert "compare: scenes" in text and all(one in text for one in told)
    assert "a.guidance" in text and "b.guidance" in text

"""Charts say what the numbers are: counts, marks, scales and labels, whatever the numbers."""

import io
import warnings

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from unimodal.data.inspect.charts import MAX_BARS, SIZE, bars, histogram, nothing, png, scatter

TAILED = (np.exp(np.random.default_rng(0).normal(3, 1.5, 5000)).astype(int) + 1).tolist()


def only(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def opened(figure: Figure) -> Image.Image:
    """The image of a chart; drawing it warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Image.open(io.BytesIO(png(figure)))


# --- histograms ---------------------------------------------------------------------------------


def test_bars_are_as_high_as_their_counts():
    axes = only(histogram([5] * 10 + [7] * 5, "t", "tokens"))
    found = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in axes.patches}
    assert found[5] == 10 and found[7] == 5 and sum(found.values()) == 15


@pytest.mark.parametrize(
    "values", [[3], [1, 1], [80, 81, 89], list(range(1, 3000)), TAILED, [1] * 99 + [10**6]]
)
def test_every_value_is_in_one_bar(values: list[int]):
    axes = only(histogram(values, "t", "tokens"))
    bars_ = [(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height()) for bar in axes.patches]
    for low, high, height in bars_:
        assert height == sum(low <= value < high for value in values)
    assert sum(height for *_, height in bars_) == len(values)
    assert 5 <= len(bars_) <= 110


def test_half_and_95_percent_lie_left_of_the_marks():
    axes = only(histogram(TAILED, "t", "tokens"))
    median, percentile = (line.get_xdata()[0] for line in axes.lines)
    assert median == np.median(TAILED) and percentile == np.percentile(TAILED, 95)
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == [f"median: {median:,.0f} tokens", f"95th percentile: {percentile:,.0f} tokens"]


def test_a_long_tail_stands_on_a_logarithmic_axis_that_says_so():
    even = only(histogram([50, 60, 70], "t", "tokens"))
    tailed = only(histogram(TAILED, "t", "tokens"))
    assert (even.get_xscale(), even.get_xlabel()) == ("linear", "tokens")
    assert (tailed.get_xscale(), tailed.get_xlabel()) == ("log", "tokens, logarithmic")
    assert even.get_ylabel() == tailed.get_ylabel() == "documents"


@pytest.mark.parametrize("last", [2, 7, 10, 99, 1024, 65_000, 10**9])
def test_ticks_are_few_round_and_whole(last: int):
    figure = histogram([1, last], "t", "tokens")
    opened(figure)
    axes = only(figure)
    first, last = axes.get_xlim()
    ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    words = [text.get_text() for value, text in ticks if first <= value <= last]
    assert 2 <= len(words) <= 12 and len(set(words)) == len(words)
    assert all(word.replace(",", "").isdigit() for word in words), words


# --- bars and sizes -----------------------------------------------------------------------------


def test_the_longest_bars_come_first_and_the_rest_is_counted():
    counts = {f"shard-{k}": k + 1 for k in range(MAX_BARS + 3)}
    axes = only(bars({"Bad samples by shard": counts}, "samples"))
    assert [bar.get_width() for bar in axes.patches] == [15 - k for k in range(MAX_BARS)]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names[:2] == ["shard-14", "shard-13"] and axes.get_xlabel() == "samples"
    words = [text.get_text() for text in axes.texts]
    assert "15" in words and "and 3 more, 6 in all" in words


def test_bars_of_unlike_length_are_all_seen():
    axes = only(bars({"t": {"bad image": 12_000, "wrong JSON": 2, "other": 1}}, "samples"))
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "samples, logarithmic"
    assert axes.get_xlim()[0] < 1


def test_untrusted_names_are_shown_as_they_are():
    name = "half-a-$x_{-and-日本\U000f1234.tar"
    figure = bars({"t": {name: 1, "long" * 30: 2}}, "samples")
    assert opened(figure).width == SIZE[0]
    long, short = (text.get_text() for text in only(figure).get_yticklabels())
    assert short == name and len(long) == 40 and long.startswith("…") and long.endswith("long")


def test_a_dot_for_each_size_the_larger_the_more():
    sizes = {(64, 80): 100, (320, 240): 25, (200, 120): 50}
    axes, margin = scatter(sizes, "Image sizes").axes
    (dots,) = axes.collections
    assert np.asarray(dots.get_offsets()).tolist() == [[64, 80], [200, 120], [320, 240]]
    largest, middle, least = dots.get_sizes()
    assert largest - middle == pytest.approx(2 * (middle - least))
    assert axes.get_xlabel() == "width, pixels" and axes.get_ylabel() == "height, pixels"
    assert "64 x 80: 100\n200 x 120: 50\n320 x 240: 25" in margin.texts[0].get_text()


def test_sizes_from_icons_to_scans_stand_on_logarithmic_axes():
    many = {(8 * (k + 1), 16): 30 - k for k in range(20)} | {(9000, 7000): 1}
    axes, margin = scatter(many, "Image sizes").axes
    assert axes.get_xscale() == axes.get_yscale() == "log"
    rest = sum(sorted(many.values())[:7])
    assert f"7 other sizes: {rest}" in margin.texts[0].get_text()


# --- nothing, and the file ----------------------------------------------------------------------


def test_charts_of_nothing_say_so():
    for figure in (nothing("t"), histogram([], "t", "n"), scatter({}, "t"), bars({"t": {}}, "n")):
        words = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert words == ["none"] and only(figure).get_title("left") == "t"
        assert opened(figure).width == SIZE[0]


def test_equal_numbers_give_equal_bytes_of_the_size_that_was_said():
    first, second = (png(histogram(TAILED, "t", "tokens")) for _ in range(2))
    assert first == second
    assert Image.open(io.BytesIO(first)).size == SIZE
    assert png(histogram(TAILED[1:], "t", "tokens")) != first

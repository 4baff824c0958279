"""What the terminal shows: images in characters, text that cannot steer it, and Ctrl-C."""

import io
import re
import signal
import time
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image as PILImage
from rich.console import Console
from terminal_cases import sample_image

from unimodal.events import ImageProgress
from unimodal.screen import HalfBlocks, Screen


def test_a_ctrl_c_that_python_drops_still_stops_the_reply():
    def events():
        yield ImageProgress(0, 1, 4)
        with suppress(KeyboardInterrupt):  # as a destructor does
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.01)
        yield ImageProgress(0, 2, 4)
        pytest.fail("the reply went on")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Screen(Console(file=io.StringIO())).play(events(), lambda image, seed: None)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def shown(image: PILImage.Image, width: int) -> np.ndarray:
    """The pixels that a true-colour terminal of `width` columns shows, (H, W, 3)."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system="truecolor", width=width)
    console.print(HalfBlocks(image))
    rows = []
    for line in stream.getvalue().splitlines():
        cells = re.findall(r"\x1b\[38;2;(\d+);(\d+);(\d+)(?:;48;2;(\d+);(\d+);(\d+))?m▀", line)
        values = np.array([[int(v) if v else -1 for v in cell] for cell in cells])
        rows += [values[:, :3], values[:, 3:]]
    return np.array(rows)


def test_half_blocks_show_every_pixel():
    image = sample_image((20, 10))
    np.testing.assert_array_equal(shown(image, 80), np.asarray(image))
    odd = sample_image((20, 9))
    np.testing.assert_array_equal(shown(odd, 80)[:9], np.asarray(odd))
    assert (shown(odd, 80)[9] == -1).all()


def test_half_blocks_shrink_to_the_terminal():
    assert shown(sample_image((64, 64)), 40).shape == (40, 40, 3)
    assert shown(sample_image((512, 256)), 500).shape == (48, 96, 3)


def test_without_colours_only_paths_are_shown(monkeypatch):
    stream = io.StringIO()
    Screen(Console(file=stream)).show(sample_image())
    monkeypatch.setenv("NO_COLOR", "1")
    Screen(Console(file=stream, force_terminal=True)).show(sample_image())
    assert stream.getvalue() == ""


@pytest.mark.parametrize("term", ["xterm", "xterm-256color", "screen", "dumb"])
def test_images_are_in_true_colour_wherever_there_are_colours(monkeypatch, term):
    monkeypatch.setenv("TERM", term)
    for name in ("COLORTERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    stream = io.StringIO()
    Screen(Console(file=stream, force_terminal=True, width=80)).show(sample_image((4, 4)))
    r, g, b = sample_image((4, 4)).getpixel((0, 0))
    assert stream.getvalue().startswith("" if term == "dumb" else f"\x1b[38;2;{r};{g};{b};48;2;")
    assert bool(stream.getvalue()) == (term != "dumb")


def test_text_cannot_steer_the_terminal():
    stream = io.StringIO()
    Screen(Console(file=stream)).say("a\x1b[2Jb\x07\x9bc\nd")
    assert stream.getvalue() == "a\ufffd[2Jb\ufffd\ufffdc\nd\n"

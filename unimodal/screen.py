"""The screen shows a conversation: words as they come, images in colour, a bar while one is drawn.

Answers go to standard output; notes, the progress bar and errors to standard error. A terminal with
colours shows images as half blocks, two pixels per character; everywhere else, with NO_COLOR set,
and in an encoding without half blocks, only the path of the saved image is printed.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.style import Style

from .chat_events import ChatEvent, Drawn, Note, Reply
from .events import ImageProgress, TextDelta

MAX_COLUMNS = 96  # of a shown image; the saved one keeps all its pixels
HALF_BLOCK = "\u2580"  # its upper half
# A model may write any byte; control characters, which would steer the terminal, become U+FFFD.
CONTROL_CHARACTERS = {
    code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"
}
CUT = {
    "text budget": "the reply was cut: it has used up its tokens of text",
    "image budget": "the reply was cut: it has used up its images",
    "context": "the reply was cut: the conversation fills the model's context",
}


class HalfBlocks:
    """HalfBlocks show an image by rich: the two colours of a half block are two pixels."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        image, most = self.image, min(options.max_width, MAX_COLUMNS)
        if image.width > most:
            image = image.resize((most, max(1, round(image.height * most / image.width))))
        rows = [[Color.from_rgb(*rgb) for rgb in row] for row in np.asarray(image).tolist()]
        for upper, lower in zip_longest(rows[::2], rows[1::2], fillvalue=[None] * image.width):
            for above, below in zip(upper, lower, strict=True):
                yield Segment(HALF_BLOCK, Style(color=above, bgcolor=below))
            yield Segment.line()


class Screen:
    """A Screen shows events: text as it comes, images in colour, a bar while one is drawn."""

    def __init__(self, out: Console) -> None:
        self.out, self.log = out, Console(stderr=True)
        has_colours = out.is_terminal and not out.no_color and not out.is_dumb_terminal
        self.shows_images = has_colours and _spelled(HALF_BLOCK, out) == HALF_BLOCK
        self._in_line = False
        self._bar: Progress | None = None

    def play(
        self, events: Iterator[ChatEvent], keep: Callable[[Image.Image, int], Path | None]
    ) -> Reply:
        """Show events as they come and return the reply.

        `keep` saves a finished image, which a seed has drawn, before anything can go wrong with
        showing it, and returns its path; None: it was not saved.
        """
        try:
            with _interrupts() as stop_if_asked:
                for event in events:
                    path = keep(event.image, event.seed) if isinstance(event, Drawn) else None
                    self._show(event)
                    if path is not None:
                        self.saved(path)
                    if not isinstance(event, Reply):  # a Reply has already joined the conversation
                        stop_if_asked()
        finally:
            self._close_bar()
            self._end_line()
        assert isinstance(event, Reply), f"the last event is a Reply, not {type(event).__name__}"
        return event

    def say(self, text: str) -> None:
        """Print a line on standard output."""
        self._end_line()
        self.out.out(_spelled(text, self.out), highlight=False)

    def saved(self, path: Path) -> None:
        """Print where something was saved."""
        self.say(f"saved {path}")

    def note(self, text: str, style: str = "dim") -> None:
        """Print a line on standard error, beside the conversation."""
        self._end_line()
        self.log.out(_spelled(text, self.log), style=style, highlight=False)

    def show(self, image: Image.Image) -> None:
        """Show an image where the terminal has colours, in 24 bits.

        Judged by TERM and COLORTERM, most terminals seem to have 16 colours only, in which images
        cannot be recognised.
        """
        if self.shows_images:
            file, width = self.out.file, self.out.width
            true = Console(file=file, force_terminal=True, color_system="truecolor", width=width)
            true.print(HalfBlocks(image))

    def _show(self, event: ChatEvent) -> None:
        if isinstance(event, Note):
            self.note(event.text)
        elif isinstance(event, TextDelta):
            self._words(event.text)
        elif isinstance(event, ImageProgress):
            self._progress(event.done, event.total)
        elif isinstance(event, Drawn):
            self._close_bar()
            self.show(event.image)
        elif event.end != "stop":
            self.note(CUT[event.end])

    def _words(self, text: str) -> None:
        self.out.out(_spelled(text, self.out), end="", highlight=False)
        self._in_line = not text.endswith("\n") if text else self._in_line

    def _end_line(self) -> None:
        if self._in_line:
            self.out.out("")
            self._in_line = False

    def _progress(self, done: int, total: int) -> None:
        if self._bar is None:
            self._end_line()
            columns = (TextColumn("drawing"), BarColumn(), TimeRemainingColumn())
            hidden = not self.log.is_terminal
            self._bar = Progress(*columns, console=self.log, transient=True, disable=hidden)
            self._bar.add_task("drawing", total=total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _spelled(text: str, console: Console) -> str:
    """Return text as a console can write it: what its encoding lacks is escaped, as \\xe9."""
    text = text.translate(CONTROL_CHARACTERS)
    return text.encode(console.encoding, "backslashreplace").decode(console.encoding)


@contextmanager
def _interrupts() -> Iterator[Callable[[], None]]:
    """Yield a function that raises KeyboardInterrupt once Ctrl-C has been pressed.

    Python drops exceptions that are raised inside a destructor or some callbacks, and a signal may
    arrive there: one Ctrl-C in ten was lost while drawing. So the signal is recorded as well.
    """
    came: list[int] = []

    def stop_if_asked() -> None:
        if came:
            raise KeyboardInterrupt

    def note(number: int, frame: object) -> None:
        came.append(number)
        stop_if_asked()

    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield stop_if_asked  # signals reach the main thread only; a handler of others is left alone
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield stop_if_asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)

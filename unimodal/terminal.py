"""`unimodal chat` holds a conversation in the terminal, or answers one request.

Answers go to standard output; notes, the progress bar and errors to standard error. A terminal with
colours shows images as half blocks, two pixels per character; everywhere else, and with NO_COLOR
set, only the path of the saved image is printed.
"""

import json
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.style import Style

from unimodal.tokenizer.pixels import fit, open_image

from .bundle import load
from .chat import Chat, ChatEvent, Drawn, Note, Reply
from .events import ImageProgress, TextDelta
from .transcript import Gallery, check_directory, save_conversation

OUTPUT = Path("unimodal-images")
MAX_COLUMNS = 96  # of a shown image; the saved one keeps all its pixels
# A model may write any byte; control characters, which would steer the terminal, become U+FFFD.
CONTROL_CHARACTERS = {
    code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"
}


def run(
    model: Path | None = None,
    prompt: str | None = None,
    images: Sequence[Path] = (),
    output: Path | None = None,
    seed: int | None = None,
    guidance: float | None = None,
    temperature: float | None = None,
    as_json: bool = False,
) -> None:
    """Answer `prompt` and return, or hold a conversation when there is none.

    None leaves a setting to the model's defaults. output: the directory in which images are saved.
    as_json: end standard output with the line {"text", "images": [absolute paths]}. Raise
    ValueError for everything that the user can fix.
    """
    if as_json and prompt is None:
        raise ValueError("--json answers one request: give it with --prompt")
    if output is not None or OUTPUT.is_file():  # no directory is needed where nothing is drawn
        check_directory(output or OUTPUT)
    output = output or OUTPUT
    chat = Chat(load(model), **_changes(seed, guidance, temperature))
    if prompt is None:
        Session(chat, output).run(images)
    else:
        answer(chat, prompt, images, output, as_json)


def _changes(seed: int | None, guidance: float | None, temperature: float | None) -> dict[str, Any]:
    """Return the fields of Sampling that the options set."""
    options = {
        "seed": seed,
        "guidance": guidance,
        "text_temperature": temperature,
        "image_temperature": temperature,
    }
    return {name: value for name, value in options.items() if value is not None}


def answer(
    chat: Chat, prompt: str, images: Sequence[Path], output: Path, as_json: bool = False
) -> None:
    """Answer one request: print the reply and save its images, named by prompt and seed."""
    screen = Screen(Console(stderr=as_json))
    gallery = Gallery(output, prompt, chat.sampling.seed)
    reply = screen.play(chat.stream(prompt, images), lambda image: screen.saved(gallery.add(image)))
    if as_json:
        paths = [str(path.resolve()) for path in gallery.paths]
        print(json.dumps({"text": reply.text, "images": paths}))


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
                yield Segment("▀", Style(color=above, bgcolor=below))
            yield Segment.line()


class Screen:
    """A Screen shows events: text as it comes, images in colour, a bar while one is drawn."""

    def __init__(self, out: Console) -> None:
        self.out, self.log = out, Console(stderr=True)
        self.shows_images = out.is_terminal and not out.no_color and not out.is_dumb_terminal
        self._in_line = False
        self._bar: Progress | None = None

    def play(self, events: Iterator[ChatEvent], keep: Callable[[Image.Image], None]) -> Reply:
        """Show events as they come, call `keep` on each finished image, and return the reply."""
        try:
            with _interrupts() as stop_if_asked:
                for event in events:
                    self._show(event)
                    if isinstance(event, Drawn):
                        keep(event.image)
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
        self.out.out(text.translate(CONTROL_CHARACTERS), highlight=False)

    def saved(self, path: Path) -> None:
        """Print where something was saved."""
        self.say(f"saved {path}")

    def note(self, text: str, style: str = "dim") -> None:
        """Print a line on standard error, beside the conversation."""
        self.log.out(text.translate(CONTROL_CHARACTERS), style=style, highlight=False)

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

    def _words(self, text: str) -> None:
        text = text.translate(CONTROL_CHARACTERS)
        self.out.out(text, end="", highlight=False)
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


class Session:
    """A Session is the interactive conversation: a line is a request, or a command with '/'."""

    def __init__(self, chat: Chat, output: Path) -> None:
        self.chat, self.output = chat, output
        self.screen = Screen(Console())
        self.given: list[Image.Image] = []  # images for the next request
        self.commands: dict[str, tuple[str, str, Callable[[str], None]]] = {
            "image": (
                "PATH",
                "show an image with your next message; no PATH: none",
                self._image,
            ),
            "seed": (
                "N",
                "what chance does in the next reply; the same seed draws the same",
                self._seed,
            ),
            "guidance": ("X", "how strictly drawings follow the words; 1 is off", self._guidance),
            "save": ("PATH", "write the conversation and its images to a folder", self._save),
            "new": ("", "forget the conversation and begin another", self._new),
            "help": ("", "this list", self._help),
            "quit": ("", "leave, as Ctrl-D does", self._quit),
        }
        self._over = False

    def run(self, images: Sequence[Path] = ()) -> None:
        """Read lines until /quit or the end of the input; `images` go with the first request."""
        for path in images:
            self._image(str(path))
        width, height = self.chat.model.canvas
        self.screen.note(
            f"Ask for a drawing ({width} x {height} pixels), or give an image with /image PATH and"
            " ask about it.\n/help lists the commands; Ctrl-C stops a reply, Ctrl-D leaves."
        )
        while not self._over:
            try:
                line = _read_line()
            except EOFError:
                return
            except KeyboardInterrupt:
                self.screen.note("\n/quit or Ctrl-D leaves")
                continue
            except UnicodeDecodeError:
                self.screen.note("error: that line is not UTF-8 text", style="red")
                continue
            self._step(line)

    def _step(self, line: str) -> None:
        """Handle a line; errors are shown and the conversation goes on."""
        try:
            if line.startswith("/"):
                self._command(line)
            elif line.strip() or self.given:
                self._answer(line)
        except KeyboardInterrupt:
            self.screen.note("stopped: the unfinished reply is forgotten")
        except (ValueError, OSError) as error:
            self.screen.note(f"error: {error}", style="red")

    def _answer(self, line: str) -> None:
        gallery = Gallery(self.output, line, self.chat.sampling.seed)

        def keep(image: Image.Image) -> None:
            try:
                self.screen.saved(gallery.add(image))
            except ValueError as error:  # the reply goes on: /save can still write it elsewhere
                self.screen.note(f"error: {error}", style="red")

        self.screen.play(self.chat.stream(line, self.given), keep)
        self.given.clear()

    def _command(self, line: str) -> None:
        name, argument = (*line[1:].split(maxsplit=1), "", "")[:2]
        if name in self.commands:
            self.commands[name][2](argument.strip())
            return
        nearest = get_close_matches(name, self.commands, n=1, cutoff=0.4)
        if Path(line.strip()).is_file():
            raise ValueError(f"to show an image, write /image {line.strip()}")
        hint = f"did you mean /{nearest[0]}?" if nearest else "/help lists the commands"
        raise ValueError(f"there is no command /{name}: {hint}")

    def _image(self, argument: str) -> None:
        if not argument and self.given:
            self.given.clear()
            self.screen.note("no image will go with your next message")
            return
        opened = open_image(_path(argument, "/image photo.png"))
        for note in opened.notes:
            self.screen.note(note)
        self.screen.show(fit(opened.image, self.chat.model.canvas))
        self.given.append(opened.image)
        self.screen.note(f"{len(self.given)} image(s) will go with your next message")

    def _seed(self, argument: str) -> None:
        if argument:
            self._sample(seed=_number(int, argument, "/seed 7"))
        self.screen.note(f"seed {self.chat.sampling.seed}")

    def _guidance(self, argument: str) -> None:
        if argument:
            self._sample(guidance=_number(float, argument, "/guidance 3"))
        guidance = self.chat.sampling.guidance
        self.screen.note(f"guidance {1 if guidance is None else guidance}")

    def _sample(self, **changes: Any) -> None:
        self.chat.sampling = replace(self.chat.sampling, **changes)

    def _save(self, argument: str) -> None:
        if not self.chat.document.parts:
            raise ValueError("there is nothing to save yet")
        path = _path(argument, "/save my-chat")
        self.screen.saved(save_conversation(self.chat.document, self.chat.model.hash, path))

    def _new(self, _: str) -> None:
        self.chat.reset()
        self.given.clear()
        self.screen.note("a new conversation")

    def _help(self, _: str) -> None:
        for name, (usage, words, _function) in self.commands.items():
            self.screen.note(f"/{name} {usage}".ljust(16) + words, style="")

    def _quit(self, _: str) -> None:
        self._over = True


def _read_line() -> str:
    """Read a line, from a person with a prompt and line editing, from a pipe without."""
    if not sys.stdin.isatty():
        return input()
    try:
        import readline  # noqa: F401  (its import gives input() editing and history)
    except ImportError:  # a Python built without it
        pass
    return input("> ")


def _path(argument: str, example: str) -> Path:
    """Return a path as typed, without the quotes that a terminal puts around a dropped file."""
    if not argument:
        raise ValueError(f"name a path, such as {example}")
    try:
        path = Path(argument).expanduser()
        quoted = argument[0] in "'\"" or "\\" in argument
        if quoted and not path.exists():
            return Path(" ".join(shlex.split(argument))).expanduser()
    except (RuntimeError, ValueError) as error:  # an unknown user after ~; an open quotation
        raise ValueError(f"{argument!r} is no path: {error}") from error
    return path


def _number(kind: Callable[[str], Any], argument: str, example: str) -> Any:
    try:
        return kind(argument)
    except ValueError as error:
        raise ValueError(f"{argument!r} is no number here: write for example {example}") from error

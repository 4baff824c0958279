"""A session is the interactive conversation: a message is a request, or a command with '/'.

From a person it reads messages with a prompt and line editing, pasted lines as one message; from a
pipe it reads lines.
"""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from unimodal.tokenizer.pixels import fit, open_image

from .boxes import EXAMPLE, boxed
from .chat import Chat
from .chat_events import ChatEvent
from .document import Document
from .document import Image as DocumentImage
from .grammar import Modality
from .model import Model
from .provenance import words_of
from .sampling import SettingError
from .screen import Screen
from .transcript import Gallery, read_conversation, save_conversation

FAILED, INTERRUPTED = 2, 130  # exit statuses, as a command's error and as shells say Ctrl-C
COMMANDS = {  # by which settings are changed
    "seed": "/seed", "guidance": "/guidance", "negative": "/negative", "image_steps": "/steps",
}  # fmt: skip


class Session:
    """A Session is the interactive conversation: a message is a request, or a command with '/'."""

    def __init__(self, chat: Chat, output: Path) -> None:
        self.chat, self.output = chat, output
        self.screen = Screen(Console())
        self.given: list[Image.Image] = []  # images for the next request
        self.boxes: list[str] = []  # of the next request
        self.commands: dict[str, tuple[str, str, Callable[[str], None]]] = {
            "image": ("PATH", "show an image with your next message, again for several; no PATH:"
                      " none", self._image),
            "box": ("BOX", f"what is to stand where on your next drawing, as {EXAMPLE}; again for"
                    " several; no BOX: none", self._box),
            "words": ("MESSAGE", "answer without an image", self._words),
            "draw": ("MESSAGE", "answer with an image alone", self._draw),
            "retry": ("", "answer your latest message anew", self._retry),
            "undo": ("", "forget your latest message and its reply", self._undo),
            "redo": ("", "bring back what was undone last", self._redo),
            "forget": ("N", "forget your N oldest messages and their replies", self._forget),
            "seed": ("N", "what chance does in the next reply; the same seed draws the same",
                     self._seed),
            "guidance": ("X", "how strictly drawings follow the words; 1 is off", self._guidance),
            "negative": ("WORDS", "what guidance leads drawings away from; no WORDS: nothing",
                         self._negative),
            "steps": ("N", "in how many steps to draw, where the model draws in steps",
                      self._steps),
            "candidates": ("N", "draw N and keep the one that my own answers find best; 1 is off",
                           self._candidates),
            "save": ("PATH", "write the conversation and its images to a folder", self._save),
            "load": ("PATH", "go on with a conversation that was saved", self._load),
            "new": ("", "forget the conversation and begin another", self._new),
            "help": ("", "this list", self._help),
            "quit": ("", "leave, as Ctrl-D does", self._quit),
        }  # fmt: skip
        self._is_person = sys.stdin.isatty()
        self._over = self._failed = self._asked_to_leave = False

    def run(self, images: Sequence[Path] = (), boxes: Sequence[str] = ()) -> int:
        """Read messages until /quit, the end of the input or a second Ctrl-C, and return the exit
        status: of a pipe, FAILED after any error. `images` and `boxes` go with the first request.
        """
        for path in images:
            self._image(str(path))
        for box in boxes:
            self._box(box)
        self.screen.note(
            f"{_welcome(self.chat.model)}\n/help lists the commands; Ctrl-C stops a reply, Ctrl-D"
            " leaves."
        )
        try:
            while not self._over:
                self._next()
        except KeyboardInterrupt:  # the second one
            return INTERRUPTED
        return FAILED if self._failed and not self._is_person else 0

    def _next(self) -> None:
        """Read a message and handle it."""
        try:
            message = _read_message(self._is_person)
        except EOFError:
            self._over = True
            return
        except UnicodeDecodeError as error:
            self._error(f"that line is not {error.encoding.upper()} text")
            return
        except KeyboardInterrupt:
            self._interrupted()
            return
        self._asked_to_leave = False
        self._step(message)

    def _interrupted(self) -> None:
        """Handle Ctrl-C where a message is awaited; KeyboardInterrupt where it ends the session."""
        if not self._is_person or self._asked_to_leave:
            raise KeyboardInterrupt
        # With a line begun, it is this line that is given up.
        self._asked_to_leave = not _typed()
        self.screen.note("\n/quit or Ctrl-D leaves, as does a second Ctrl-C")

    def _step(self, message: str) -> None:
        """Handle a message; errors are shown and the conversation goes on."""
        try:
            if message.startswith("/") and self._is_command(message):
                self._command(message)
            elif message.strip() or self.given or self.boxes:
                self._answer(message)
        except KeyboardInterrupt:
            if not self._is_person:
                raise
            self.screen.note("stopped: the unfinished reply is forgotten")
        except (ValueError, OSError) as error:
            self._error(str(error))

    def _error(self, message: str) -> None:
        self._failed = True
        self.screen.note(f"error: {message}", style="red")

    def _answer(self, message: str, modality: Modality | None = None) -> None:
        events = self.chat.stream(message, self.given, modality, self.boxes)
        self._play(Document(self.chat.texts(message, self.boxes)), events)
        self._give_nothing()

    def _give_nothing(self) -> None:
        self.given.clear()
        self.boxes.clear()

    def _play(self, asked: Document, events: Iterator[ChatEvent]) -> None:
        """Show a reply and save its images, named by the words of the latest turn."""
        model = self.chat.model
        gallery = Gallery(self.output, words_of(asked, model.canvas), model.hash)

        def keep(image: Image.Image, seed: int) -> Path | None:
            try:
                return gallery.add(image, seed)
            except ValueError as error:  # the reply goes on: /save can still write it elsewhere
                self._error(str(error))
                return None

        self.screen.play(events, keep)

    def _is_command(self, message: str) -> bool:
        """Return whether a message that begins with '/' is a command: of several lines none is.

        Raise ValueError for a command with more lines behind it.
        """
        first, *more = message.splitlines()
        name = first[1:].split(maxsplit=1)[0] if first[1:].split() else ""
        if more and name in self.commands:
            raise ValueError(f"/{name} is a line of its own, and {len(more)} more came with it")
        return not more

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

    def _box(self, argument: str) -> None:
        wanted = [*self.boxes, argument] if argument else []
        boxed(self.chat.model, wanted)
        self.boxes = wanted
        self.screen.note(f"{len(wanted)} box(es) will go with your next message")

    def _seed(self, argument: str) -> None:
        if argument:
            self._sample(seed=_number(int, argument, "/seed 7"))
        self.screen.note(f"seed {self.chat.sampling.seed}")

    def _guidance(self, argument: str) -> None:
        if argument:
            self._sample(guidance=_number(float, argument, "/guidance 3"))
        guidance = self.chat.sampling.guidance
        self.screen.note(f"guidance {1 if guidance is None else guidance}")

    def _negative(self, argument: str) -> None:
        self._sample(negative=argument or None)
        self.screen.note(f"negative: {argument or 'nothing'}")

    def _steps(self, argument: str) -> None:
        if argument:
            self._sample(image_steps=_number(int, argument, "/steps 16"))
        self.screen.note(f"steps {self.chat.sampling.image_steps or 'of the model'}")

    def _candidates(self, argument: str) -> None:
        if argument:
            self.chat.candidates = _number(int, argument, "/candidates 4")
        self.screen.note(f"candidates {self.chat.candidates}")

    def _sample(self, **changes: Any) -> None:
        model = self.chat.model.transformer
        try:
            changed = replace(self.chat.sampling, **changes)
            changed.check(model.head.follows, model.architecture.image.head)
        except SettingError as error:
            raise ValueError(error.said(COMMANDS)) from error
        self.chat.sampling = changed

    def _save(self, argument: str) -> None:
        if not self.chat.document.parts:
            raise ValueError("there is nothing to save yet")
        path = _path(argument, "/save my-chat")
        self.screen.saved(save_conversation(self.chat.document, self.chat.model.hash, path))

    def _load(self, argument: str) -> None:
        path = _path(argument, "/load my-chat")
        document, notes = read_conversation(path, self.chat.model)
        self.chat.resume(document)
        self._give_nothing()
        for note in notes:
            self.screen.note(note)
        messages = sum(role == "user" for role, _ in document.turns())
        images = sum(isinstance(part, DocumentImage) for part in document.parts)
        self.screen.note(f"a conversation of {messages} message(s) and {images} image(s)")

    def _words(self, argument: str) -> None:
        self._ask(argument, "text", "/words what do you see?")

    def _draw(self, argument: str) -> None:
        self._ask(argument, "image", "/draw a red circle")

    def _ask(self, argument: str, modality: Modality, example: str) -> None:
        if not argument and not self.given and not self.boxes:
            raise ValueError(f"write the message behind it, such as {example}")
        self._answer(argument, modality)

    def _retry(self, _: str) -> None:
        self._play(self.chat.document, self.chat.again())

    def _undo(self, _: str) -> None:
        self.chat.undo()
        self.screen.note("your latest message and its reply are forgotten")

    def _redo(self, _: str) -> None:
        self.chat.redo()
        self.screen.note(f"back again: {self.chat.asked}")

    def _forget(self, argument: str) -> None:
        number = _number(int, argument, "/forget 2")
        self.chat.forget(number)
        self.screen.note(f"your {number} oldest message(s) and their replies are forgotten")

    def _new(self, _: str) -> None:
        self.chat.reset()
        self._give_nothing()
        self.screen.note("a new conversation")

    def _help(self, _: str) -> None:
        for name, (usage, words, _function) in self.commands.items():
            self.screen.note(f"/{name} {usage}".ljust(16) + words, style="")

    def _quit(self, _: str) -> None:
        self._over = True


def _welcome(model: Model) -> str:
    """Return what a model can be asked for, in words."""
    replies, (width, height) = model.replies, model.canvas
    ask = "give an image with /image PATH and ask about it."
    if "image" not in replies:
        return f"This model answers in words; {ask}"
    draws = f"a drawing ({width} x {height} pixels)"
    if replies[0] is None:
        return f"Ask for {draws}, or {ask}"
    if replies[0] == "image":
        return f"Ask for {draws}; /words asks for words."
    return f"Ask for {draws} with /draw, or {ask}"


def _read_message(is_person: bool) -> str:
    """Read a message: from a person with a prompt, line editing and pasted lines as one, from a
    pipe a line.
    """
    if not is_person:
        return input()
    try:
        import readline  # its import gives input() editing and history

        readline.parse_and_bind("set enable-bracketed-paste on")
    except ImportError:  # a Python built without it
        pass
    return input("> ")


def _typed() -> str:
    """Return what was typed of the line that Ctrl-C has ended."""
    readline = sys.modules.get("readline")
    return readline.get_line_buffer() if readline is not None else ""


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

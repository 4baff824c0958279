"""Judge replies: by the verdicts of the world of scenes, by the user's function, by a command.

In: prompts, and the parts of a reply to each, images with pixels. Out: a `Mark` for each.
"""

import inspect
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field
from importlib import import_module
from pathlib import Path
from subprocess import PIPE
from typing import Any

from PIL import Image as PILImage

from unimodal.data.scenes.edits import Edit
from unimodal.data.scenes.layouts import Placed
from unimodal.data.scenes.plans import agrees, planned
from unimodal.data.scenes.questions import Question
from unimodal.data.scenes.reading import Unreadable, read_scene
from unimodal.data.scenes.refusals import is_refusal
from unimodal.data.scenes.requests import Request as DrawingRequest
from unimodal.data.scenes.second_reading import read_again
from unimodal.data.scenes.world import Scene
from unimodal.document import Document, Image, Part, Text
from unimodal.eval.answer import Answer
from unimodal.eval.shares import share_done, share_granted, share_placed, share_told
from unimodal.eval.verdicts import (
    judge_caption,
    judge_drawing,
    judge_edit,
    judge_layout,
    judge_question,
)
from unimodal.transcript import save_image

from .prompts import Prompt, Wish
from .run import RewardConfig, ScenesReward

Parts = tuple[Part, ...]
Function = Callable[[Document, Parts], float]
SHOWN_LINES = 10  # of what a command that fails has said
MOST_SHOWN = 80  # characters of what is no number


@dataclass(frozen=True)
class Mark:
    """A Mark is what a reply is worth, and facts to report that are no part of it."""

    reward: float
    facts: dict[str, float] = field(default_factory=dict)


Judge = Callable[[Sequence[Prompt], Sequence[Parts]], list[Mark]]


def judge_of(config: RewardConfig) -> Judge:
    """Return what judges replies. Raise ValueError where a function cannot be imported, or a
    command is not there.
    """
    if config.scenes is not None:
        shape = config.scenes
        return lambda prompts, replies: [
            judged_scene(shape, prompt, parts)
            for prompt, parts in zip(prompts, replies, strict=True)
        ]
    if config.python is not None:
        function, name = imported(config.python), config.python
        return lambda prompts, replies: [
            Mark(checked(name, called(name, function, prompt, parts)), common_facts(parts))
            for prompt, parts in zip(prompts, replies, strict=True)
        ]
    assert config.command is not None, "one of them was given"
    command, timeout_s = config.command, config.timeout_s
    check_command(command)
    return lambda prompts, replies: asked(command, timeout_s, prompts, replies)


def judged_scene(shape: ScenesReward, prompt: Prompt, parts: Parts) -> Mark:
    """Return the mark of a reply to a request in the world of scenes.

    `right` is the verdict; `second` that of the second reader on an image, which is no part of the
    reward; `planned` whether a plan in words before an image is right; `refused` whether the words
    say that it cannot be granted; `words_instead` whether an image was wanted and none came.
    """
    assert prompt.wish is not None, "it was asked in the world of scenes"
    answer, wish = Answer.of(parts), prompt.wish
    reason = _verdict(wish, answer)
    share = 1.0 if not reason else _share(wish, answer)
    reward = shape.right if not reason else 0.0
    if reason and share is not None:
        reward = shape.wrong + shape.share * share
    facts = common_facts(parts) | {"right": float(not reason)}
    facts["refused"] = float(is_refusal(answer.text))
    if isinstance(wish, DrawingRequest | Edit | tuple):
        facts["words_instead"] = float(not answer.images)
        facts["second"] = float(_second(wish, answer))
    if isinstance(wish, DrawingRequest | Edit) and answer.images:
        claims = planned(answer.text, wish.before if isinstance(wish, Edit) else None)
        if claims is not None:
            facts["planned"] = float(agrees(claims, wish))
            reward += shape.plan * facts["planned"] if reason else 0.0
    return Mark(reward, facts)


def common_facts(parts: Parts) -> dict[str, float]:
    """Return what is reported of any reply: its words and its images."""
    words = sum(len(part.text.split()) for part in parts if isinstance(part, Text))
    return {"words": float(words), "images": float(sum(isinstance(p, Image) for p in parts))}


def _verdict(wish: Wish, answer: Answer) -> str:
    """Return why the answer is wrong; '' where it is right."""
    if isinstance(wish, DrawingRequest):
        return judge_drawing(wish, answer).reason
    if isinstance(wish, Edit):
        return judge_edit(wish, answer).reason
    if isinstance(wish, Question):
        return judge_question(wish, answer).reason
    if isinstance(wish, tuple):
        return judge_layout(wish, answer).reason
    return judge_caption(wish, answer).reason


def _share(wish: Wish, answer: Answer) -> float | None:
    """Return how much of what was asked for is there; None where nothing can be read."""
    if isinstance(wish, Question):
        return None
    if isinstance(wish, Scene):
        return None if answer.images else share_told(answer.text, wish)
    return _shown(wish, read_scene(answer.images[0])) if len(answer.images) == 1 else None


def _second(wish: DrawingRequest | Edit | tuple[Placed, ...], answer: Answer) -> bool:
    """Return whether the second reader finds a drawing, or an edit, right."""
    return len(answer.images) == 1 and _shown(wish, read_again(answer.images[0])) == 1


def _shown(
    wish: DrawingRequest | Edit | tuple[Placed, ...], read: Scene | Unreadable | None
) -> float | None:
    """Return how much of a wish an image shows as it was read, 1 where it is granted; None where
    it cannot be read.
    """
    if not isinstance(read, Scene):
        return None
    if isinstance(wish, tuple):
        return share_placed(wish, read)
    return share_done(wish, read) if isinstance(wish, Edit) else share_granted(wish, read)


def imported(name: str) -> Function:
    """Return the function `module:function`. Raise ValueError where there is none."""
    module_name, _, function = name.partition(":")
    if not module_name or not function:
        raise ValueError(f"reward.python {name}: it is written module:function")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"reward.python {name}: {_said(error)}; a module is found where python finds it, such "
            "as in a folder that PYTHONPATH names"
        ) from error
    except (Exception, SystemExit) as error:  # whatever it is: it is the user's
        raise ValueError(f"reward.python {name}: {_said(error)}") from error
    found = getattr(module, function, None)
    if found is None:
        raise ValueError(f"reward.python {name}: the module has no {function}")
    if not callable(found):
        raise ValueError(f"reward.python {name}: {found!r} is no function")
    try:
        signature = inspect.signature(found)
    except ValueError:  # of one that is not written in Python
        return found
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise ValueError(
            f"reward.python {name}{signature}: {error}; it is called with (document, reply)"
        ) from error
    return found


def _said(error: BaseException) -> str:
    """Return the kind of an error, and what it says, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def called(name: str, function: Function, prompt: Prompt, parts: Parts) -> Any:
    """Return what the user's function says of a reply. Raise ValueError where it raises."""
    try:
        return function(prompt.document, parts)
    except (Exception, SystemExit) as error:  # whatever it is: it is the user's
        where = traceback.extract_tb(error.__traceback__)[-1]
        words = " ".join(one.text for one in prompt.document.parts if isinstance(one, Text))
        raise ValueError(
            f"reward.python {name} raised {_said(error)} "
            f"({where.filename}, line {where.lineno}) for a reply to {words[:80]!r}: it is called "
            "with (document, reply)"
        ) from error


def check_command(command: str) -> None:
    """Raise ValueError where a command cannot be found, before anything is asked."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"reward.command {command!r} is no command: {error}") from error
    if not words:
        raise ValueError(f"reward.command {command!r} is empty: name a program, and its arguments")
    if shutil.which(words[0]) is None:
        raise ValueError(f"reward.command {command!r}: there is no program {words[0]}")


def checked(name: str, value: Any) -> float:
    """Return a reward. Raise ValueError where it is no finite number."""
    is_odd = isinstance(value, str) and ("_" in value or not value.isascii())
    try:
        number = math.nan if is_odd else float(value)  # float() reads `1_000` too
    except Exception:  # of a type of the user's
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(
            f"the reward of {name} is {_shown_value(value)}: a finite number is wanted"
        )
    return number


def _shown_value(value: Any) -> str:
    try:
        return repr(value)[:MOST_SHOWN]
    except Exception:  # such as of a whole number of 5,000 digits
        return f"a {type(value).__name__} that cannot be shown"


def asked(
    command: str, timeout_s: float, prompts: Sequence[Prompt], replies: Sequence[Parts]
) -> list[Mark]:
    """Return the marks that a command gives: it reads a JSON line a reply, and writes a number a
    line. Images are PNG files in a folder that is gone when it ends.

    Raise ValueError where it fails, is late, or answers otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="unimodal-replies-") as folder:
        lines = [
            json.dumps(_told(Path(folder) / str(number), *one), ensure_ascii=False)
            for number, one in enumerate(zip(prompts, replies, strict=True))
        ]
        said = _run(command, timeout_s, "\n".join(lines) + "\n")
    numbers = [line for line in said.splitlines() if line.strip()]
    if len(numbers) != len(replies):
        raise ValueError(
            f"reward.command {command!r} wrote {len(numbers)} lines for {len(replies)} replies: "
            "a number for each, in order"
        )
    return [
        Mark(checked(command, number), common_facts(parts))
        for number, parts in zip(numbers, replies, strict=True)
    ]


def _told(begin: Path, prompt: Prompt, parts: Parts) -> dict[str, Any]:
    """Return a prompt and a reply as JSON; images are written to files whose path begins so."""

    def told(part: Part, name: str) -> dict[str, Any]:
        if isinstance(part, Text):
            box = {"box": astuple(part.box)} if part.box is not None else {}
            return {"role": part.role, "text": part.text} | box
        assert part.pixels is not None, "an image that is judged has pixels"
        path = begin.with_name(f"{begin.name}_{name}.png")
        save_image(PILImage.fromarray(part.pixels), path)
        return {"role": part.role, "image": str(path)}

    return {
        "kind": prompt.kind,
        "prompt": [told(part, f"p{at}") for at, part in enumerate(prompt.document.parts)],
        "reply": [told(part, f"r{at}") for at, part in enumerate(parts)],
    }


def _run(command: str, timeout_s: float, lines: str) -> str:
    """Return what a command writes when it is given these lines."""
    try:
        process = subprocess.Popen(
            shlex.split(command), stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True,
            encoding="utf-8", errors="backslashreplace",  # what is no number is then shown
        )  # fmt: skip
    except OSError as error:
        raise ValueError(f"reward.command {command!r}: {error}") from error
    with process:
        try:
            output, errors = process.communicate(lines, timeout_s)
        except BaseException as error:  # what a script has started is to end with it
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise ValueError(
                f"reward.command {command!r} was not done in {timeout_s:g} s: give more "
                "reward.timeout_s, or judge faster"
            ) from error
    if process.returncode:
        said = "\n".join(errors.splitlines()[-SHOWN_LINES:])
        told = f":\n{said}" if said else ", and wrote no error"
        raise ValueError(f"reward.command {command!r} ended with {process.returncode}{told}")
    return output

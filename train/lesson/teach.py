"""Teach a bundle captioned images, from a folder to a finished bundle and its report.

    check -> say what will happen -> write shards -> exam -> `train lm` -> the same exam -> report

The same command goes on where it was stopped.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from unimodal.atomic import write_bytes
from unimodal.bundle import load
from unimodal.model import Model
from unimodal.transcript import save_image

from .. import lora, metrics
from ..lm import train
from . import recipe, report
from .album import NAMED, Album, read_album
from .exams import examine
from .lesson import Lesson

REPLAY, EXAM = 0.5, 10  # where the bundle has learned scenes
Say = Callable[[str], None]


def teach(lesson: Lesson, say: Say) -> Iterator[str]:
    """Teach the images of a lesson and return the lines that say what came of it.

    `say` is called with each line that the user should know before it happens. Raises ValueError
    for all that does not fit, before anything is written.
    """
    if problems := lesson.problems():
        raise ValueError("; ".join(problems))
    model = load(lesson.bundle)
    lesson = settled(lesson, model, say)
    if not lesson.all_weights:
        lora.check_installed()
    album = checked(lesson, read_album(lesson.source, model, recipe.length_of(model)), say)
    num_steps = _prepared(lesson, album, model, say)
    say("exam before")
    before = examine(model, album.images, lesson, "before")
    finished = train(recipe.run_of(lesson, model, num_steps))
    say("exam after")
    taught = load(finished)
    after = examine(taught, album.images, lesson, "after")
    save_image(report.before_after(album, taught, before, after), lesson.output / report.SHEET)
    minutes = 60 * metrics.hours(lesson.output)
    words = report.report(lesson, album, before, after, num_steps, minutes)
    write_bytes(lesson.output / report.REPORT, words.encode())
    return report.summary(before, after, lesson)


def settled(lesson: Lesson, model: Model, say: Say) -> Lesson:
    """Return the lesson with what the bundle decides: what trains, replay, the exam of scenes.

    ValueError where the bundle has no world that could be replayed, or asked about.
    """
    if not model.image_tokenizer.decodes:
        raise ValueError(
            f"--bundle {lesson.bundle}: its image tokenizer has no decoder, so it draws nothing"
        )
    if lesson.all_weights is None:
        lesson = replace(lesson, all_weights=not recipe.is_large(model))
    if recipe.has_scenes(model):
        replay = REPLAY if lesson.replay is None else lesson.replay
        exam = EXAM if lesson.exam is None else lesson.exam
        lesson = replace(lesson, replay=replay, exam=exam)
        if lesson.replay:
            lesson = replace(lesson, mix=lesson.mix or recipe.usual_mix(model))
            recipe.replay_of(lesson, model, 1).note()  # a mix or icons that there are not stop here
        return lesson
    why = "by its card the bundle has not learned the world of scenes"
    if lesson.replay:
        raise ValueError(f"--replay {lesson.replay:g}: {why}; leave it out")
    if lesson.exam:
        raise ValueError(f"--exam {lesson.exam}: {why}; leave it out")
    if lesson.mix or lesson.things:
        raise ValueError(f"--mix and --things: {why}: nothing is replayed; leave them out")
    say(f"{why}: nothing is replayed, and no old exam is taken")
    return replace(lesson, replay=0.0, exam=0)


def checked(lesson: Lesson, album: Album, say: Say) -> Album:
    """Return the album with its images held out, after saying what was found.

    ValueError where an image cannot be used and `skip_bad` does not let it pass.
    """
    total = len(album.images) + len(album.bad)
    if album.bad and not lesson.skip_bad:
        more = [f"and {len(album.bad) - NAMED} more"] if len(album.bad) > NAMED else []
        named = "\n  ".join([*album.bad[:NAMED], *more])
        raise ValueError(
            f"{lesson.source}: {len(album.bad)} of {total} images cannot be used; mend them, or "
            f"leave them out by --skip-bad:\n  {named}"
        )
    album = album.held_out(lesson.hold_out, lesson.seed)
    say(
        f"{lesson.source}: {total} images, {len(album.bad)} left out, {len(album.taught)} taught, "
        f"{lesson.hold_out} held out"
    )
    for line in (*album.bad, *album.notes):
        say(f"  {line}")
    for line in album.warnings():
        say(f"warning: {line}")
    return album


def _prepared(lesson: Lesson, album: Album, model: Model, say: Say) -> int:
    """Write what the run reads, and return its number of steps."""
    asked = lesson.asked(album.digest, model.hash)
    num_steps = lesson.begun(asked)
    if num_steps is None:
        num_steps = _planned(lesson, album, model, say)
        lesson.note(asked, num_steps)
    else:
        say(f"{lesson.output} was begun before: it goes on to step {num_steps}")
    recipe.write_images(lesson.output / recipe.IMAGES, album.taught)
    if lesson.replay:
        replay = recipe.replay_of(lesson, model, num_steps)
        say(f"replay: {replay.samples:,} conversations, {lesson.replay:.0%} of the tokens")
        recipe.write_replay(lesson.output / recipe.REPLAY, replay)
        if model.codec.content == "codes":
            say("up to half of that: its own right drawings and edits, for which it is asked now")
            recipe.write_own(lesson, model, num_steps)
    return num_steps


def _planned(lesson: Lesson, album: Album, model: Model, say: Say) -> int:
    """Return the steps of a new run, after saying how long they will take."""
    assert lesson.replay is not None, "the lesson was settled"
    with TemporaryDirectory() as folder:  # nothing is written for what may be refused
        recipe.write_images(Path(folder) / recipe.IMAGES, album.taught)
        tried = replace(lesson, output=Path(folder))
        step_s = recipe.step_seconds(model, recipe.run_of(tried, model, 1))
    if lesson.steps is not None:
        num_steps = lesson.steps
    elif lesson.minutes is not None:
        num_steps = int(60 * lesson.minutes / step_s)
        if num_steps < 1:
            raise ValueError(
                f"--minutes {lesson.minutes:g}: a step takes {step_s:.1f} s here; give more"
            )
    else:
        num_steps = recipe.steps_needed(model, album.taught, lesson.replay)
    what = "all weights" if lesson.all_weights else "adapters beside the weights"
    exams = f"; two exams of your images{' and of scenes' if lesson.exam else ''}"
    steps = f"{num_steps} step{'s' * (num_steps > 1)}"
    say(
        f"training {what}: {steps} of about {step_s:.1f} s on {recipe.threads()}, "
        f"{num_steps * step_s / 60:.1f} minutes{exams}, some minutes more"
    )
    return num_steps

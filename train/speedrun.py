"""From an empty disk to a small model that chats: `python -m unimodal.train.speedrun`.

Runs the project's own commands one after another, each printed as a user would type it:

    data scenes (images) -> train tokenizer -> data scenes (conversations) -> data encode ->
    train lm -> eval scenes -> chat

A stopped speedrun goes on where it was. Lengths are chosen for 20 minutes on two CPU cores, with
bfloat16 arithmetic or without; `--scale 0.01` is the same path in about a minute, for tests. Images
are encoded once and for all: a step that encodes its own shares its cores with that, and takes
nearly twice the time.

Scenes have one or two objects, and drawings are planned in words first: a small model learns what
words mean from plans, which say all of an image, long before it does from requests.
"""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from unimodal.finite_range import FiniteRange

from . import precision

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
IMAGES, TOKENIZER_STEPS = 20_000, {"bf16": 3_200, "fp32": 2_400}
CONVERSATIONS, LM_STEPS = 28_000, {"bf16": 1_900, "fp32": 680}
MIX = ("draw=0.6", "ask=0.15", "edit=0.25", "describe=0", "story=0", "greet=0", "plan=1",
       "seen_weight=0.1")  # fmt: skip
SAMPLES = 40  # of each task and kind of the evaluation
INTERRUPTED = 128 + signal.SIGINT  # as shells say it


def commands(output: Path, scale: float) -> list[list[str]]:
    """Return the commands of a speedrun into `output`; data, steps and samples times `scale`."""

    def times(number: int, least: int) -> str:
        return str(max(least, round(number * scale)))

    def schedule(num_steps: str) -> list[str]:
        fall = int(num_steps) * 5 // 8
        return [f"schedule.num_steps={num_steps}", f"schedule.decay_steps={fall}",
                f"schedule.warmup_steps={min(50, int(num_steps) // 10)}"]  # fmt: skip

    arithmetic = "bf16" if precision.has_bf16() else "fp32"
    images, conversations, codes = (
        str(output / name) for name in ("images", "conversations", "codes")
    )
    tokenizer, lm = output / "tokenizer", output / "lm"
    recipe = {
        "tokenizer": str(CONFIGS / "speedrun_tokenizer.yaml"),
        "lm": str(CONFIGS / "speedrun_lm.yaml"),
    }
    mix = ["--max-objects", "2", *(word for share in MIX for word in ("--mix", share))]
    samples = {
        "images": ["--samples", times(IMAGES, 64)],
        "conversations": ["--samples", times(CONVERSATIONS, 64)],
    }
    steps = {
        "tokenizer": schedule(times(TOKENIZER_STEPS[arithmetic], 20)),
        "lm": schedule(times(LM_STEPS[arithmetic], 4)),
    }
    image = [f"output={tokenizer}", f"shards={images}", f"precision={arithmetic}"]
    encoder = str(tokenizer / "tokenizer")
    language = [f"output={lm}", f"sources.scenes.shards={codes}", f"tokenizer={encoder}"]
    files = {"json": "scores.json", "markdown": "scores.md", "contact-sheet": "sheet.png"}
    reports = [word for kind, name in files.items() for word in (f"--{kind}", str(output / name))]
    bundle, scored = ["--model", str(lm / "bundle")], ["--samples", times(SAMPLES, 1)]
    return [
        ["data", "scenes", images, "--kind", "images", "--seed", "1", *samples["images"]],
        ["train", "tokenizer", recipe["tokenizer"], *image, *steps["tokenizer"]],
        ["data", "scenes", conversations, "--seed", "2", *samples["conversations"], *mix],
        ["data", "encode", conversations, codes, "--tokenizer", encoder, "--workers", "2"],
        ["train", "lm", recipe["lm"], *language, *steps["lm"]],
        ["eval", "scenes", *bundle, *scored, *reports],
        ["chat", *bundle, "--prompt", "draw a red circle", "--output", str(output)],
    ]


def perform(command: list[str]) -> int:
    """Run one command to its end and return its exit code.

    A terminal sends Ctrl-C to the command too, which then stops in its own time, as with a
    checkpoint: it is waited for, and SystemExit leaves with its code. A second Ctrl-C kills it.
    """
    child = subprocess.Popen(command)
    try:
        return child.wait()
    except KeyboardInterrupt:
        code = _stopped(child)
    click.echo("stopped; run this again to go on", err=True)
    raise SystemExit(code if code > 0 else INTERRUPTED)


def _stopped(child: subprocess.Popen[bytes]) -> int:
    try:
        click.echo("stopping; Ctrl-C once more kills it", err=True)
        return child.wait()
    except KeyboardInterrupt:
        child.kill()
        return child.wait()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("runs/speedrun"), show_default=True
)
@click.option("--scale", type=FiniteRange(0, 100, min_open=True), default=1.0, show_default=True,
              help="Of data, steps and samples.")  # fmt: skip
def main(output: Path, scale: float) -> None:
    """Train a small model from scratch and evaluate it."""
    began = time.monotonic()
    for arguments in commands(output, scale):
        click.secho(f"$ unimodal {shlex.join(arguments)}", bold=True)
        if perform([sys.executable, "-m", "unimodal", *arguments]):
            raise click.ClickException(
                f"`unimodal {' '.join(arguments[:2])}` failed; fix it and run this again"
            )
    click.echo((output / "scores.md").read_text())
    click.echo(f"speedrun: {(time.monotonic() - began) / 60:.1f} minutes; chat with it: "
               f"unimodal chat --model {output / 'lm' / 'bundle'}")  # fmt: skip


if __name__ == "__main__":
    main()

"""The command `unimodal` has verbs of its own, and one verb for each upper folder.

An upper folder (data, eval, train) registers its click group as an entry point of the group
`unimodal.commands`. It is imported only when its verb is used, and nothing here imports torch
before a verb runs, so that `unimodal --help` is instant.
"""

import sys
import tomllib
from collections.abc import Callable
from errno import ENOSPC
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points, version
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click

ENTRY_POINTS = "unimodal.commands"
PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"  # exists in a clone only
PATH = click.Path(path_type=Path)


class UserError(click.ClickException):
    """A UserError is an error that the user can fix: one message, no traceback, exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.message}", err=True)


class Verbs(click.Group):
    """Verbs is a group that finds the upper folders' groups and shows errors as one message."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_upper()])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        upper = _upper()
        return upper[name].load() if name in upper else super().get_command(ctx, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, command.get_short_help_str(80)) for name, command in self.commands.items()]
        rows += [(name, _folder_help(entry)) for name, entry in _upper().items()]
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click ends quietly when the reader of a pipe has gone
            raise
        except click.NoSuchOption as error:
            raise _renamed(error) from error
        except (ValueError, OSError) as error:
            if ctx.params["debug"]:
                raise
            raise UserError(_message(error)) from error


def _renamed(error: click.NoSuchOption) -> click.NoSuchOption:
    """Return the error with the option's new name, where the option was renamed."""
    from .config import RENAMED  # imports PyYAML, which the help does not need

    old = error.option_name.lstrip("-").replace("-", "_")
    new = f"--{RENAMED.get(old, old).replace('_', '-')}"
    here = error.ctx.command.params if error.ctx is not None else []
    if not any(new in parameter.opts for parameter in here):
        return error
    said = f"{error.option_name}: it is called {new} now"
    return click.NoSuchOption(error.option_name, said, ctx=error.ctx)


def _message(error: Exception) -> str:
    """Return an error's message; that of the system's errors as 'FILE: No space left on device'."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    name = f"{error.filename}: " if error.filename is not None else ""
    way_out = "; make room and run the same command again" if error.errno == ENOSPC else ""
    return f"{name}{error.strerror}{way_out}"


def _project() -> dict[str, Any]:
    """Return the clone's [project] table; an empty one in an installed copy."""
    return tomllib.loads(PYPROJECT.read_text())["project"] if PYPROJECT.exists() else {}


def _upper() -> dict[str, EntryPoint]:
    """Return the upper folders' verbs.

    Those in a clone's pyproject.toml, which needs no installation, take precedence.
    """
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    table = _project().get("entry-points", {}).get(ENTRY_POINTS, {})
    return found | {name: EntryPoint(name, value, ENTRY_POINTS) for name, value in table.items()}


def _folder_help(entry: EntryPoint) -> str:
    """Return the docstring of the folder; its command module is not imported."""
    return import_module(entry.module.rpartition(".")[0]).__doc__ or ""


def _show_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"unimodal {_project().get('version') or version('unimodal')}")
        ctx.exit()


@click.group(cls=Verbs, name="unimodal", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, envvar="UNIMODAL_DEBUG", help="Show errors with traceback.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
    help="Show the version and exit.",
)  # fmt: skip
def main(debug: bool) -> None:
    """One transformer that reads and writes text and images.

    \b
    unimodal chat                                        talk in the terminal
    unimodal chat --prompt "draw two red circles"        one answer
    unimodal chat --prompt "what is this?" --image a.png
    unimodal serve                                       OpenAI's protocol, over HTTP
    unimodal COMMAND --help                              options and examples
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # no text is lost to what a terminal cannot spell
            stream.reconfigure(errors="backslashreplace")


_model_option = click.option(
    "--model", type=PATH, help="A bundle's directory [default: `default`, the one that is shipped]."
)
_tokenizer_option = click.option(
    "--model",
    type=PATH,
    help="Directory of a bundle, of a run of `unimodal train tokenizer` or of a published model, "
    "or that model's id on the Hugging Face hub [default: the model that is shipped].",
)


def _loading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of how a model is loaded."""
    for option in (
        click.option(
            "--weights", type=click.Choice(["fp32", "int8", "int4"]), default="fp32",
            show_default=True,
            help="Layers in 8 or 4 bits, for less memory; the replies are others.",
        ),
        click.option("--dtype", help="Of a published model: bfloat16, float16 or float32."),
        click.option(
            "--device",
            help="cpu, cuda, cuda:N, several as cuda:0,cuda:1, or auto: the GPUs that it takes "
            "[default: a published model's is a GPU if any].",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def _output_option(words: str) -> Callable[[Any], Any]:
    return click.option("--output", type=PATH, required=True, help=words)


@main.command()
@click.argument("named", metavar="[MODEL]", type=PATH, required=False)
@_model_option
@click.option("--prompt", help="Answer this one request and exit; - reads it from standard input.")
@click.option("--image", "images", type=PATH, multiple=True, help="An image to show; repeatable.")
@click.option("--output", type=PATH, help="Directory for drawn images, or one file, as a.png.")
@click.option("--seed", type=click.IntRange(0), help="The same seed gives the same bytes.")
@click.option("--guidance", type=float, help="How strictly a drawing follows the words; 1 is off.")
@click.option("--negative", metavar="WORDS", help="What guidance leads drawings away from.")
@click.option(
    "--guidance-interval", type=float, nargs=2, metavar="FIRST LAST",
    help="Guide only from one time of a drawing to another, of 0 to 1.",
)  # fmt: skip
@click.option("--image-steps", type=int, help="Steps of a drawing; of the heads masked and flow.")
@click.option(
    "--image-drafts", type=int, help="Codes that are guessed and checked at once; of next_code."
)
@click.option(
    "--image-solver", type=click.Choice(["euler", "heun"]), help="Of a step; of the head flow."
)
@click.option("--temperature", type=float, help="0 is the likeliest answer, 1 samples as trained.")
@_loading_options
@click.option("--size", metavar="WxH", help="Pixels of drawings; refused where none are so large.")
@click.option("--draw", is_flag=True, help="Answer the one request with an image alone.")
@click.option(
    "--candidates", type=int, default=1, show_default=True,
    help="Draw so many, up to 8, and keep the one that the model's own answers find best.",
)  # fmt: skip
@click.option(
    "--box", "boxes", multiple=True, metavar="THING,LEFT,TOP,RIGHT,BOTTOM",
    help="Where a thing is to stand, in pixels of the drawing; repeatable.",
)  # fmt: skip
@click.option(
    "--json", "as_json", is_flag=True,
    help="End with a line of JSON: text, images, end, seed, notes.",
)  # fmt: skip
def chat(named: Path | None, model: Path | None, **options: Any) -> None:
    """Talk with a model: it draws, describes, answers and edits.

    MODEL is a bundle's directory, or a published model: a directory, or an id of the hub.

    \b
    unimodal chat
    unimodal chat deepseek-community/Janus-Pro-1B --prompt "a red fox" --draw
    unimodal chat --prompt "draw a red circle" --output circle.png
    unimodal chat --prompt "how many stars?" --image image.png --json
    """
    from .terminal import run

    if named is not None and model is not None:
        raise ValueError(f"two models: {named} and --model {model}; name one")
    run(named or model, **options)


@main.command()
@click.argument("model", type=PATH, required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True,
    help="0 takes a free one.",
)  # fmt: skip
@click.option("--name", help="What clients call the model [default: its folder's name].")
@click.option(
    "--keys", type=PATH, help="File of API keys, one a line; UNIMODAL_API_KEYS has more, by commas."
)
@click.option("--open", "is_open", is_flag=True, help="Answer other machines without API keys.")
@click.option("--image-urls", is_flag=True, help="Fetch images by http(s) from public addresses.")
@click.option(
    "--c2pa-certificate", type=PATH, help="PEM chain that drawn images are signed with (C2PA)."
)
@click.option("--c2pa-key", type=PATH, help="PEM private key of the chain's first certificate.")
@_loading_options
@click.option("--batch", type=int, help="Replies in work at once.")
@click.option("--max-waiting", type=int, help="Replies that wait, of all clients.")
@click.option("--max-waiting-of-client", type=int, help="Replies that wait, of one client.")
@click.option("--requests-a-minute", type=int, help="Of one client.")
@click.option(
    "--memory-bytes", type=int,
    help="Of what is kept of all conversations [default: half of what is free].",
)  # fmt: skip
def serve(**options: Any) -> None:
    """Serve a model [default: the one shipped] as OpenAI's servers are spoken to.

    MODEL is a bundle's directory, or a published model: a directory, or an id of the hub.

    \b
    unimodal serve
    unimodal serve deepseek-community/Janus-Pro-1B --dtype bfloat16
    unimodal serve runs/mine/bundle --port 8080 --batch 32
    unimodal serve --host 0.0.0.0 --keys keys.txt
    curl http://127.0.0.1:8000/v1/images/generations \\
      -H "Content-Type: application/json" -d '{"prompt": "draw a red circle", "seed": 1}'
    """
    from .serve.command import run

    run(**options)


@main.command()
@click.argument("images", type=PATH, nargs=-1, required=True)
@_output_option("Codes file: .safetensors or .json.")
@click.option(
    "--size", type=click.IntRange(1), nargs=2, metavar="WIDTH HEIGHT",
    help="Resize and crop to these pixels [default: the size that the model draws; of a tokenizer "
    "alone, each image's own, or the only one that it takes].",
)  # fmt: skip
@_tokenizer_option
def encode(
    images: tuple[Path, ...], output: Path, size: tuple[int, int] | None, model: Path | None
) -> None:
    """Turn image files, or all images in folders, into the codes that the model reads.

    \b
    unimodal encode a.png b.jpg --output codes.safetensors
    unimodal encode photos --size 64 64 --output codes.safetensors
    unimodal encode a.png --size 64 64 --output codes.json
    unimodal encode a.png --model runs/tokenizer --output codes.safetensors
    """
    from .codes_command import encode_files

    for note in encode_files(images, output, size, model):
        click.echo(note, err=True)
    click.echo(output)


@main.command()
@click.argument("codes", type=PATH)
@_output_option("Directory for the PNG files, or one file, as a.png.")
@_tokenizer_option
def decode(codes: Path, output: Path, model: Path | None) -> None:
    """Turn a codes file back into PNG files.

    \b
    unimodal decode codes.safetensors --output out
    """
    from .codes_command import decode_file

    for path in decode_file(codes, output, model):
        click.echo(path)


@main.command()
@click.argument("checkpoint")
@click.option(
    "--tokenizer",
    type=PATH,
    help="Directory of an image tokenizer, a bundle or a published model, that model's id on the "
    "Hugging Face hub, or `default`: the one that is shipped.",
)
@_output_option("Directory of the bundle to be written.")
@click.option(
    "--rows",
    type=click.Choice(["gaussian", "codes"]),
    help="New rows: about the mean of the old, or alike for codes that are alike"
    " [default: gaussian].",
)
@click.option("--seed", type=click.IntRange(0), help="Of the new rows [default: 0].")
@click.option("--grid", metavar="ROWSxCOLUMNS", help="Of drawn images [default: 8x8].")
@click.option("--context", type=click.IntRange(1), help="Tokens [default: the checkpoint's].")
@click.option(
    "--like",
    type=PATH,
    help="Of an export that lost its folder `unimodal`: the export, or the bundle, it comes from.",
)
def grow(**options: Any) -> None:
    """Give a language model the ids that images need; the result is to be trained.

    CHECKPOINT is a Llama or one of its kin (Mistral, Qwen, Phi, OLMo, Gemma and others) in Hugging
    Face's format: a directory, or an id of the hub. One that `unimodal export` wrote becomes the
    bundle again that it was, and an Emu3, Janus-Pro, Chameleon or Anole, which has such ids, a
    bundle as it is.

    \b
    unimodal grow Qwen/Qwen3-0.6B --tokenizer default --output grown
    unimodal grow ./llama --tokenizer runs/tokenizer/tokenizer --output grown --rows codes
    unimodal grow exported --output bundle
    unimodal grow trained_elsewhere --like exported --output bundle
    """
    from .hub.command import run_grow

    click.echo(run_grow(**options))


@main.command()
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@click.option(
    "--share", type=float, default=0.5, show_default=True, help="Of the second, between 0 and 1."
)
@_output_option("Directory of the bundle to be written.")
def average(first: Path, second: Path, share: float, output: Path) -> None:
    """Write the mean of two bundles' weights, where the second was trained on from the first.

    What is no weight, the image tokenizer and sampling too, is the second's.

    \b
    unimodal average runs/rewarded/bundle runs/taught/bundle --output between
    unimodal average default runs/mine/bundle --share 0.7 --output mine
    """
    from .hub.command import run_average

    click.echo(run_average(first, second, output, share))


@main.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--format", "format", type=click.Choice(["hf"]), required=True, help="Hugging Face's."
)
@click.option("--like", help="Of a bundle of a published model: that, a directory or a hub's id.")
@_output_option("Directory to be written.")
def export(bundle: Path, format: str, output: Path, like: str | None) -> None:
    """Write a bundle as a checkpoint that transformers loads.

    One with addresses of rows and columns, as the one shipped, has no such form.

    \b
    unimodal export runs/mine/bundle --format hf --output exported
    unimodal export janus --like deepseek-community/Janus-Pro-1B --format hf --output exported
    """
    from .hub.command import run_export

    click.echo(run_export(bundle, output, like))

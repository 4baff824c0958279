"""Quantizers at an equal budget: which one reconstructs best, and which one is best to predict.

    python tests/benchmarks/quantizer_tables.py reconstruct FOLDER TRAIN HELD_OUT
    python tests/benchmarks/quantizer_tables.py predict FOLDER

TRAIN and HELD_OUT are shards of figures, such as two OpenStax textbooks. Each command does what is
not done yet, one contender after the other, writes `FOLDER/reconstruct.md` or `predict.md` after
each and prints it at the end; the same command goes on where it was stopped. Batches are equal for
all, and either steps or, with --cpu-minutes, the time that training takes of a processor; both are
stated beside the scores.
"""

import sys
from pathlib import Path
from typing import Any

import click

sys.path.extend(map(str, Path(__file__).resolve().parents[2:0:-1]))  # launched by its path

from benchmarks import predicted
from benchmarks.commands import cpu_minutes, scored
from benchmarks.contenders import KINDS, Budget, Contender, affordable, codes_needed, trained
from benchmarks.crops import cut
from benchmarks.markdown import interval, rows, write

from unimodal.finite_range import FiniteRange

SIDE, PATCH = 64, 8
TRAIN_SEED, HELD_OUT_SEED = 0, 1
BITS, OTHER_BITS, STEPS = 14, (10, 16), 2500
HEAD = (
    "quantizer", "bits", "PSNR, dB", "SSIM", "Frechet, EfficientNet-Lite0", "usage", "perplexity",
    "bin entropy, least to most", "bits a pixel, entropy", "steps", "CPU min",
)  # fmt: skip


@click.group()
def main() -> None:
    """Compare quantizers at an equal budget."""


@main.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("train", type=click.Path(exists=True, path_type=Path))
@click.argument("held_out", type=click.Path(exists=True, path_type=Path))
@click.option("--steps", type=click.IntRange(1), help=f"Of each  [default: {STEPS}].")
@click.option(
    "--cpu-minutes",
    "minutes",
    type=FiniteRange(0, min_open=True),
    help="Of each contender's training, not --steps.",
)
@click.option("--batch", default=16, show_default=True)
@click.option("--crops", default=16384, show_default=True, help="To train on.")
@click.option("--frechet-crops", default=1024, show_default=True)
@click.option("--precision", default="bf16", show_default=True)
@click.option("--beside", type=click.Choice(KINDS[1:]),
              help="Beside FSQ at other bits  [default: the best reconstruction].")  # fmt: skip
@click.option("--bits", default=BITS, show_default=True, help="Of the first rows, for a test.")
def reconstruct(
    folder: Path, train: Path, held_out: Path, steps: int | None, minutes: float | None,
    batch: int, crops: int, frechet_crops: int, precision: str, beside: str | None,
    bits: int,
) -> None:  # fmt: skip
    """Train each contender on crops of TRAIN, and measure it on crops of HELD_OUT."""
    if bits not in (BITS, *OTHER_BITS):
        raise click.UsageError(f"--bits {bits}: one of {BITS}, {OTHER_BITS}")
    if steps and minutes:
        raise click.UsageError(f"--steps {steps} and --cpu-minutes {minutes:g}: give one")
    budget = Budget(steps or STEPS, batch, precision)
    most = max(_held_out_crops(one) for one in (bits, *OTHER_BITS))
    shards = cut(train, folder, crops, SIDE, TRAIN_SEED)
    images = cut(held_out, folder, most, SIDE, HELD_OUT_SEED)
    title = (
        f"{_length(budget, minutes)} of {batch} crops of {SIDE} x {SIDE} pixels, out of "
        f"{crops:,} of {train.stem}; measured on {_held_out_crops(BITS):,} crops of "
        f"{held_out.stem} (usage at 16 bits on {_held_out_crops(16):,}, Frechet distance on "
        f"{frechet_crops:,}); {precision}, "
        "one thread, `CPU min` is what training took of one processor"
    )
    done: list[tuple[Contender, dict[str, Any]]] = []

    def take(contender: Contender) -> None:
        own = budget
        if minutes:
            own = affordable(contender, minutes, budget, shards, folder / "probes")
        run = trained(contender, own, shards, folder)
        scores = _measured(contender, run, images, folder, frechet_crops)
        done.append((contender, scores | {"steps": own.num_steps}))
        write(folder / "reconstruct.md", title, HEAD, [_cells(*one) for one in done])

    for kind in KINDS:
        take(Contender(kind, bits))
    best = beside or best_of(done)[0]
    for other in OTHER_BITS:
        for kind in ("FSQ", best):
            take(Contender(kind, other))
    print((folder / "reconstruct.md").read_text())


def _length(budget: Budget, minutes: float | None) -> str:
    """How long each is trained, in words."""
    if minutes:
        return f"{minutes:g} minutes of one processor for each, in steps"
    return f"{budget.num_steps:,} steps"


def best_of(done: list[tuple[Contender, dict[str, Any]]]) -> list[str]:
    """The kinds but FSQ, the one with the highest PSNR first."""
    order = sorted(done, key=lambda one: -one[1]["psnr_db"]["value"])
    return [contender.kind for contender, _ in order if contender.kind != "FSQ"]


def _held_out_crops(bits: int) -> int:
    """How many crops have ten times as many codes as there are; for fewer bits as for 14."""
    return codes_needed(max(bits, BITS), (SIDE // PATCH) ** 2)


def _measured(
    contender: Contender, run: Path, images: Path, folder: Path, frechet_crops: int
) -> dict[str, Any]:
    """The scores of a row: those of pixels over as many crops for each number of bits."""
    scores, log = folder / "scores", folder / "logs" / f"{contender.name}.txt"

    def told(name: str, samples: int, *more: str) -> dict[str, Any]:
        file = scores / f"{contender.name}-{name}.json"
        return scored(run, images, file, samples, log, *more)["scores"]

    pixels = told("pixels", _held_out_crops(BITS))
    many = _held_out_crops(contender.bits)
    usage = pixels if many == _held_out_crops(BITS) else told("usage", many)
    seen = told("frechet", frechet_crops, "--frechet")
    return {
        "psnr_db": pixels["psnr_db"],
        "ssim": pixels["ssim"],
        "frechet": seen["frechet_efficientnet_lite0"],
        **usage["usage"],
        "bins": [one["value"] for one in usage.get("bin_entropy", {}).values()],
        "bits": usage["bits_per_pixel"]["entropy"],
        "minutes": cpu_minutes(run),
    }


def _cells(contender: Contender, scores: dict[str, Any]) -> list[str]:
    bins = scores["bins"]
    return [
        contender.kind, str(contender.bits), interval(scores["psnr_db"], 2),
        interval(scores["ssim"], 3), interval(scores["frechet"], 1), interval(scores["share"], 3),
        interval(scores["perplexity"], 0), f"{min(bins):.2f} to {max(bins):.2f}" if bins else "",
        interval(scores["bits"], 4), f"{scores['steps']:,}", f"{scores['minutes']:.1f}",
    ]  # fmt: skip


@main.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--quantizer",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    help="Repeatable [default: FSQ, LFQ and the two best of FOLDER/reconstruct.md].",
)
@click.option("--scenes", default=60000, show_default=True, help="Images, and conversations.")
@click.option("--tokenizer-steps", default=5000, show_default=True)
@click.option("--positions", default=8_000_000, show_default=True, help="Of the language model.")
@click.option("--samples", default=100, show_default=True, help="Drawings of each task.")
@click.option("--precision", default="bf16", show_default=True)
def predict(
    folder: Path, kinds: tuple[str, ...], scenes: int, tokenizer_steps: int, positions: int,
    samples: int, precision: str,
) -> None:  # fmt: skip
    """Train tokenizers on scenes, the same small language model on each, and let it draw."""
    chosen = kinds or tuple(dict.fromkeys(("FSQ", "LFQ", *_two_best(folder))))
    budget = predicted.Budget(scenes, tokenizer_steps, positions, samples, precision)
    done = []
    for kind in chosen:
        done.append((kind, predicted.scores(Contender(kind, BITS), budget, folder / "predict")))
        write(
            folder / "predict.md", budget.title, predicted.HEAD,
            [predicted.cells(*one) for one in done],
        )  # fmt: skip
    print((folder / "predict.md").read_text())


def _two_best(folder: Path) -> list[str]:
    """The two kinds of the first table with the highest PSNR, but FSQ."""
    found = rows(folder / "reconstruct.md")
    first = [row for row in found if row["bits"] == str(BITS)]
    if len(first) < len(KINDS):
        raise click.UsageError(
            f"{folder}/reconstruct.md has {len(first)} of {len(KINDS)} rows of {BITS} bits: let "
            "`reconstruct` finish, or name --quantizer"
        )
    order = sorted(first, key=lambda row: -float(row["PSNR, dB"].split()[0]))
    return [row["quantizer"] for row in order if row["quantizer"] != "FSQ"][:2]


if __name__ == "__main__":
    main()

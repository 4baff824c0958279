"""Whether two commits give the same results, bit for bit: what a refactoring must keep.

    python tests/same_results.py COMMIT [--to COMMIT] [--keep FOLDER]

Both commits are exported and run the same probes through the command line, on one CPU thread. What
a probe finds are items by name: numbers as JSON spells them, which is exact, and SHA-256 of tensors
and of files. Times, places, commits and hashes of whole bundles are not compared. It prints a line
for each kind of result, then the items that differ, and ends with 1 where there are any.
"""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from safetensors import deserialize

ROOT = Path(__file__).resolve().parents[1]
MARKER = "data/scenes/world.py"  # a file that only commits with the new names have
# Old name -> new name of a leaf or of a whole section; each `*` is one segment and stays as it is.
# The first segment says where a name stands: config (keys of recipes), words (verbs, options and
# option=value of the command line), reply, metrics, eval, samples (fields of JSON; samples are
# those in shards) and tensors (a file's name without suffix, then the tensor's).
RENAMED: dict[str, str] = {
    "config.loader.row_length": "config.loader.sequence_length",
    "config.optimizer.average": "config.optimizer.ema_decay",
    "config.model.levels": "config.model.quantizer.fsq.levels",
    "config.model.num_blocks": "config.model.patches.num_blocks",
    "config.model.encoder_width": "config.model.patches.encoder_width",
    "config.model.decoder_width": "config.model.patches.decoder_width",
    "config.model.pixel_width": "config.model.patches.pixel_width",
    "config.engine.micro_rows": "config.engine.micro_batch_rows",
    "words.--kind=pictures": "words.--kind=images",
    "samples.parts.*.picture": "samples.parts.*.image",
    "eval.predictions.*.expected.things": "eval.predictions.*.expected.objects",
    "eval.predictions.*.answer.things": "eval.predictions.*.answer.objects",
    "eval.scores.*.perfect_pictures": "eval.scores.*.perfect_images",
    "eval.scores.tokenizer.pictures": "eval.scores.tokenizer.images",
}
# Old word -> new word in what messages say: verdicts of an evaluation, and the chat template's.
REWORDED = {"picture": "image", "things": "objects", "thing": "object", "mark": "special token"}
LOSSES = re.compile(r"loss|gradient_norm|lr_factor|held_out")  # in a new name of metrics
TIMEOUT_S, MOST_SHOWN = 900, 5
TORCHRUN = "-m torch.distributed.run --standalone --nproc-per-node 2".split()
SAVE_QWEN3 = "import checkpoints, pathlib, sys; checkpoints.save(pathlib.Path(sys.argv[1]))"
Config = dict[str, Any]  # dotted key of a recipe, by its old name -> value
MIXTURE: Config = {
    "sources.one.shards": "shards", "sources.two.shards": "drawings", "sources.two.weight": 0.5,
    "loader.row_length": 512, "loader.window_rows": 16, "loader.caption_dropout": 0.5,
}  # fmt: skip
TOKENIZER: Config = {
    "shards": "pictures", "batch_images": 8, "model.levels": [4, 4, 4], "model.num_blocks": 1,
    "model.encoder_width": 16, "model.decoder_width": 16, "model.pixel_width": 4,
    "schedule.num_steps": 5, "schedule.warmup_steps": 1, "loop.num_threads": 1,
}  # fmt: skip
LM: Config = {
    "precision": "fp32",
    "sources.scenes.shards": "shards", "loader.batch_rows": 2, "loader.window_rows": 8,
    "optimizer.lr": 1e-3, "schedule.warmup_steps": 2, "schedule.num_steps": 4,
    "loop.num_threads": 1,
}  # fmt: skip
SMALL = LM | {
    "text_ids": 300, "model.width": 32, "model.num_layers": 2, "model.num_heads": 2,
    "model.num_kv_heads": 1, "model.head_width": 16, "model.mlp_width": 64,
}  # fmt: skip
LONG = SMALL | {
    "schedule.num_steps": 12, "schedule.decay_steps": 4, "optimizer.muon_lr": 1e-2,
    "optimizer.average": 0.8, "loss.text": 1.5, "loss.z": 1e-4, "engine.micro_rows": 1,
    "held_out.sources.others.shards": "drawings", "held_out.rows": 2, "held_out.every_steps": 6,
}  # fmt: skip
ZERO = {"stage": 3, "stage3_param_persistence_threshold": 1000}
CIRCLE, STARS = "circle/draw-a-red-circle-seed-1.png", "stars/draw-two-blue-stars-seed-2.png"
REPLIES: dict[str, list[str]] = {  # folder -> prompt and options; later ones show earlier pictures
    "circle": ["draw a red circle", "--seed", "1"],
    "stars": ["draw two blue stars", "--seed", "2"],
    "free": ["draw a green square", "--seed", "3", "--temperature", "1", "--guidance", "1.5"],
    "seen": ["what is in this picture?", "--image", CIRCLE],
    "counted": ["how many stars are there?", "--image", STARS],
    "changed": ["make the circle blue", "--image", CIRCLE, "--seed", "5"],
}

Items = dict[str, str]  # name of an item -> its exact spelling, or SHA-256 of its bytes
Row = tuple[str, Items]  # a line of the table


@dataclass(frozen=True)
class Side:
    """A commit: its exported source, and the folder in which its probes work."""

    label: str
    source: Path
    folder: Path
    is_new: bool  # whether the new names hold here

    @property
    def default(self) -> str:
        """The directory of the bundle that is shipped."""
        return str(self.source / "unimodal" / "default")

    def own(self, name: str) -> str:
        """What this side calls what has this old name, without the first segment."""
        return (renamed(name) if self.is_new else name).partition(".")[2]

    def common(self, name: str) -> str:
        """The new name of what this side calls so."""
        return name if self.is_new else renamed(name)

    def worded(self, name: str, text: str) -> str:
        """What a message says in today's words; other texts stay as they are."""
        is_old_message = not self.is_new and name.endswith((".reason", ".chat_template"))
        for old, new in REWORDED.items() if is_old_message else ():
            text = re.sub(rf"\b{old}(?=s?\b)", new, text)
        return text

    def config(self, name: str, values: Config) -> str:
        """Write a recipe, and return the name of its file."""
        tree: dict[str, Any] = {}
        for key, value in values.items():
            *sections, leaf = self.own(f"config.{key}").split(".")
            place = tree
            for section in sections:
                place = place.setdefault(section, {})
            place[leaf] = value
        (self.folder / f"{name}.yaml").write_text(json.dumps(tree))  # which is YAML as well
        return f"{name}.yaml"

    def python(self, *words: str) -> str:
        """Run Python in the folder, and return the last line of its standard output."""
        ours = {
            "PYTHONPATH": str(self.source), "PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "ignore",
            "UNIMODAL_CACHE": str(self.folder / "cache"), "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, *words], cwd=self.folder, env={**os.environ, **ours},
            capture_output=True, text=True, timeout=TIMEOUT_S,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} failed: {done.stderr[-2000:]}")
        return (done.stdout.splitlines() or [""])[-1]

    def unimodal(self, *words: str, launcher: Sequence[str] = ()) -> str:
        """Run `unimodal`, and return the last line of its standard output."""
        own, began = [self.own(f"words.{word}") for word in words], time.monotonic()
        last = self.python(*launcher, "-m", "unimodal", *own)
        spent_s = time.monotonic() - began
        click.echo(f"{self.label}: {spent_s:4.1f} s: unimodal {' '.join(own)}", err=True)
        return last


def renamed(name: str) -> str:
    """The new name of an old one; others stay as they are."""
    for old, new in RENAMED.items():
        pattern = re.escape(old).replace(r"\*", r"([^.]+)") + r"(?![^.])"
        if found := re.match(pattern, name):
            between = zip(new.split("*"), [*found.groups(), ""], strict=True)
            return "".join(map("".join, between)) + name[found.end() :]
    return name


def sha(*contents: bytes) -> str:
    """SHA-256 of some bytes."""
    return hashlib.sha256(b"\0".join(contents)).hexdigest()


def leaves(side: Side, value: Any, name: str) -> Items:
    """Every leaf of parsed JSON under its dotted name."""
    below = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(below, dict) or not below:
        return {side.common(name): side.worded(name, json.dumps(value))}
    found: Items = {}
    for key, entry in below.items():
        found |= leaves(side, entry, f"{name}.{key}")
    return found


def tensors(side: Side, folder: str) -> Items:
    """Every tensor of a folder's safetensors files, by its file and its name."""
    found = {}
    for path in sorted((side.folder / folder).glob("*.safetensors")):
        for name, tensor in sorted(deserialize(path.read_bytes())):
            kind = f"{tensor['dtype']} {tensor['shape']}".encode()
            found[side.common(f"tensors.{path.stem}.{name}")] = sha(kind, tensor["data"])
    return found


def members(side: Side, folder: str) -> Items:
    """Every file in a folder's shards; of .json what it says."""
    found = {}
    for path in sorted((side.folder / folder).glob("*.tar")):
        with tarfile.open(path) as shard:
            for member in shard:
                file = shard.extractfile(member)
                content = file.read() if file else b""
                if member.name.endswith(".json"):
                    content = json.dumps(leaves(side, json.loads(content), "samples")).encode()
                found[f"{path.name}/{member.name}"] = sha(content)
    return found


# --- probes: each yields lines of the table, and may use what those before it have written -------


def data(side: Side) -> Iterator[Row]:
    """Shards of scenes, their codes, and the digests of rows by one rank and by two."""
    sets = {"shards": ["--samples", "200", "--shard-samples", "120"]}
    sets["drawings"] = ["--samples", "60", "--seed", "8", "--mix", "draw=1"]
    sets["pictures"] = ["--samples", "64", "--seed", "9", "--kind=pictures"]
    for folder, words in sets.items():
        side.unimodal("data", "scenes", folder, *words)
        yield f"data scenes: {folder}", members(side, folder)
    side.unimodal("data", "encode", "shards", "codes")
    yield "data encode: codes", members(side, "codes")
    recipe = side.config("mixture", MIXTURE | {"tokenizer": side.default})
    feeds = {"shards": ["shards"], "codes": ["codes"], "two sources": ["--config", recipe]}
    for name, words in feeds.items():
        asked = ["data", "digest", *words, "--rows", "16", "--world-size"]
        yield f"data digest: {name}", {f"ranks: {n}": side.unimodal(*asked, n) for n in "12"}


def train(
    side: Side, verb: str, name: str, values: Config, launcher: Sequence[str] = ()
) -> Iterator[Row]:
    """Losses and norms of a run, and the tensors of what it has trained."""
    recipe = side.config(name, values | {"output": name})
    finished = side.unimodal("train", verb, recipe, launcher=launcher)
    lines = (side.folder / name / "metrics.jsonl").read_text().splitlines()
    logged = leaves(side, [json.loads(line) for line in lines], "metrics")
    losses = {name: value for name, value in logged.items() if LOSSES.search(name)}
    yield f"train {verb}, {name}: losses and norms", losses
    yield f"train {verb}, {name}: tensors", tensors(side, finished)


def runs(side: Side) -> Iterator[Row]:
    """Runs of both models: from nothing, from the shipped bundle, and in parts on two ranks."""
    yield from train(side, "tokenizer", "pictures-run", TOKENIZER)
    image = {"tokenizer": side.default}
    yield from train(side, "lm", "from-nothing", LONG | image)
    yield from train(side, "lm", "from-bundle", LM | image | {"weights": side.default})
    (side.folder / "zero.json").write_text(json.dumps({"zero_optimization": ZERO}))
    parts = SMALL | image | {"engine.deepspeed": "zero.json"}
    yield from train(side, "lm", "zero3-two-ranks", parts, TORCHRUN)


def replies(side: Side) -> Iterator[Row]:
    """What the shipped model says, draws and changes; and pictures as codes and back."""
    for folder, words in REPLIES.items():
        asked = ["--output", folder, "--prompt", *words]
        said = json.loads(side.unimodal("chat", "--json", *asked))
        text, drawn = said[side.own("reply.text")], said[side.own("reply.images")]
        items = {Path(path).name: sha(Path(path).read_bytes()) for path in drawn}
        yield f"chat: {words[0]}", {"text": text} | items
    side.unimodal("encode", CIRCLE, STARS, "--output", "codes.safetensors")
    yield "encode: codes", tensors(side, "")
    side.unimodal("decode", "codes.safetensors", "--output", "decoded")
    decoded = sorted((side.folder / "decoded").glob("*.png"))
    yield "decode: pictures", {path.name: sha(path.read_bytes()) for path in decoded}


def checkpoint(side: Side) -> Iterator[Row]:
    """The shipped bundle as a checkpoint and back, and bundles grown from another family's."""
    side.unimodal("export", "--format=hf", "--output", "exported")
    yield "export: tensors", tensors(side, "exported")
    names = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
    files = {name: json.loads((side.folder / "exported" / name).read_text()) for name in names}
    yield "export: config, tokenizer and chat template", leaves(side, files, "exported")
    side.unimodal("grow", "exported", "--output", "restored")
    restored = tensors(side, "restored")
    if restored != tensors(side, side.default):
        raise RuntimeError("the export does not become the bundle again that it was")
    yield "grow: the exported bundle again", restored
    for rows in ("gaussian", "codes"):
        words = ["--tokenizer", side.default, f"--rows={rows}", "--seed", "3"]
        side.unimodal("grow", "../qwen3", *words, "--output", f"grown-{rows}")
        yield f"grow: a Qwen3, {rows}", tensors(side, f"grown-{rows}")


def evaluations(side: Side) -> Iterator[Row]:
    """Scores and predictions of the shipped model and of its image tokenizer."""
    for kind, samples in {"scenes": "1", "tokenizer": "16"}.items():
        side.unimodal("eval", kind, "--samples", samples, "--json", f"{kind}.json")
        report = json.loads((side.folder / f"{kind}.json").read_text())
        for part in ("scores", "predictions"):
            found = report[side.own(f"eval.{part}")]
            yield f"eval {kind}: {part}", leaves(side, found, f"eval.{part}")


PROBES = (data, runs, replies, checkpoint, evaluations)


def results(side: Side) -> dict[str, Items]:
    """What every probe finds by line of the table; a line without items is a probe that failed."""
    found: dict[str, Items] = {}
    for probe in PROBES:
        try:
            for name, items in probe(side):
                found[name] = items
        except Exception as error:  # whatever it is, the other probes may tell more
            where = f"{side.label}: {probe.__name__}: {type(error).__name__}"
            click.echo(f"{where}: {error}", err=True)
            found[f"{probe.__name__}: failed"] = {}
    return found


def compared(before: dict[str, Items], after: dict[str, Items]) -> bool:
    """Print the table and what differs; tells whether all is equal."""
    click.echo("| result | items | before | after | equal |\n|---|---:|---|---|---|")
    differences: list[str] = []
    for name in before | after:
        both = before.get(name, {}), after.get(name, {})
        hashes = [sha(json.dumps(sorted(i.items())).encode())[:12] if i else "none" for i in both]
        differs = not both[0] or both[0] != both[1]
        differences += different(name, *both) if differs else []
        cells = [name, str(max(map(len, both))), *hashes, "**no**" if differs else "yes"]
        click.echo(f"| {' | '.join(cells)} |")
    click.echo("\n" + "\n".join(differences or ["All results are equal."]))
    return not differences


def different(name: str, before: Items, after: Items) -> Iterator[str]:
    """How many items of a line differ, and the first of them."""
    if not before or not after:
        yield f"- {name}: no result {'after' if before else 'before'}"
        return
    wrong = [item for item in before | after if before.get(item) != after.get(item)]
    yield f"- {name}: {len(wrong)} of {len(before | after)} items differ"
    for item in wrong[:MOST_SHOWN]:
        one, other = (items.get(item, "none")[:60] for items in (before, after))
        yield f"  - {item}: {one} and {other}"


def exported(commit: str, label: str, folder: Path) -> Side:
    """The files of a commit, whose own code is what runs there."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
    if archive.returncode:
        raise click.ClickException(archive.stderr.decode().strip())
    source = folder / f"{label}-source"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
        packed.extractall(source, filter="data")
    side = Side(label, source, folder / label, (source / MARKER).exists())
    side.folder.mkdir()
    used = side.python("-c", "import unimodal; print(unimodal.__file__)")
    assert Path(used).is_relative_to(side.source), f"{used} is not the code of {commit}"
    return side


@click.command()
@click.argument("commit")
@click.option("--to", "other", default="HEAD", show_default=True, help="The commit after it.")
@click.option("--keep", type=click.Path(path_type=Path), help="A new folder; all is left there.")
def main(commit: str, other: str, keep: Path | None) -> None:
    """Compare the results of COMMIT with those of another commit."""
    with nullcontext(keep) if keep else tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        sides = [exported(commit, "before", folder), exported(other, "after", folder)]
        words = [sys.executable, "-c", SAVE_QWEN3, str(folder / "qwen3")]
        subprocess.run(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
                       check=True, capture_output=True)  # fmt: skip
        with ThreadPoolExecutor(2) as pool:
            before, after = pool.map(results, sides)
    sys.exit(not compared(before, after))


if __name__ == "__main__":
    main()

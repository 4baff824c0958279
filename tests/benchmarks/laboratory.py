"""Image heads that are compared, and the run of each: data, image tokenizer, model.

All heads train from configs/laboratory.yaml on the same conversations, with the same transformer.
What differs is the head, its image tokenizer, the learning rate, and the number of steps, which
makes their FLOPs equal.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from unimodal import config
from unimodal.rectified_flow import Solver
from unimodal.sampling import Sampling
from unimodal.train.loop import STOPPED
from unimodal.train.run import LmRun
from unimodal.train.tokenizer import TokenizerRun

from .commands import ROOT, alone, call, cpu_file, encoded, scenes, status_of

RECIPE = ROOT / "configs/laboratory.yaml"
MAX_OBJECTS = 2
MIX = {
    "draw": 0.55, "ask": 0.35, "edit": 0.1, "describe": 0, "story": 0, "greet": 0, "plan": 1,
    "exact_plan": 1, "seen_weight": 0, "asked_weight": 0, "plan_weight": 0.5,
}  # fmt: skip
IMAGES_SEED, TALKS_SEED = 1, 2
HEAD_WIDTH = 64
MUON = 0.5  # its learning rate over that of AdamW
DIVERGED = "its batch: "  # said where a loss or a gradient is not finite
PIXELS = (  # nothing is learned, so nothing says how
    "model.latents=null", "model.pixels={patch: 8}", "optimizer.lr=1e-3", "optimizer.beta2=0.95",
)  # fmt: skip
TOKENIZERS = {  # recipes, and what of them is changed
    "codes": ("scenes_tokenizer", ()),
    "few_codes": ("scenes_tokenizer", ("model.quantizer={fsq: {levels: [4, 4, 4, 4, 4]}}",)),
    "latents": ("scenes_flow_tokenizer", ()),
    "pixels": ("scenes_flow_tokenizer", PIXELS),
    "scales": ("scenes_scale_tokenizer", ()),
}
AS_NUMBERS = ("latents", "pixels")  # tokenizers without codes: rows are encoded as they are made
PIXEL_BATCHES = 100  # that are measured where nothing is learned


@dataclass(frozen=True)
class Drawing:
    """In how many steps images are drawn; None: as many as the head takes."""

    steps: int | None = None
    solver: Solver | None = None

    @property
    def name(self) -> str:
        """What tables and files call it."""
        words = [str(one) for one in (self.steps, self.solver) if one is not None]
        return "-".join(words) or "default"

    def of(self, sampling: Sampling) -> Sampling:
        """Return the settings of replies with these steps."""
        return replace(sampling, image_steps=self.steps, image_solver=self.solver or "euler")


@dataclass(frozen=True)
class Head:
    """A head that takes part."""

    name: str
    head: str
    """The key `model.head`."""
    tokenizer: str
    """One of TOKENIZERS."""
    drawings: tuple[Drawing, ...] = (Drawing(),)
    main: Drawing = field(default_factory=Drawing)
    """The one of them that heads are compared with."""
    settings: tuple[str, ...] = ()
    """What of the recipe is changed."""

    def passes(self, drawing: Drawing, places: int, scales: int) -> int:
        """Return how often the transformer reads an image of so many places while it draws."""
        if self.head == "next_code":
            return places
        if self.head == "scale":
            return scales
        assert drawing.steps is not None, "the other heads are told how many"
        if drawing.solver == "heun":
            return 2 * drawing.steps - 1  # twice a step, but in the last one
        return min(drawing.steps, places) if self.head == "masked" else drawing.steps


MASKED_STEPS, FLOW_STEPS = (4, 8, 16, 32), (4, 8, 16, 50)
SOLVERS: tuple[Solver, ...] = ("euler", "heun")
FLOW = tuple(Drawing(steps, solver) for solver in SOLVERS for steps in FLOW_STEPS)
NO_ROWS = ("model.factorised=false",)  # there are no rows of codes whose levels they could share
# Of heads that learn an image from a copy: behind a last image the clean one teaches the end alone.
UNREAD = ("loader.unread_share=0.8",)
HEADS = {
    head.name: head
    for head in (
        Head("next_code", "next_code", "few_codes", settings=("sampling.image_temperature=0.7",)),
        Head(
            "masked",
            "masked",
            "few_codes",
            tuple(map(Drawing, MASKED_STEPS)),
            Drawing(16),
            (*UNREAD, "sampling.image_temperature=0.2"),
        ),
        Head("flow", "flow", "latents", FLOW, Drawing(50, "euler"), (*NO_ROWS, *UNREAD)),
        Head(
            "scale",
            "scale",
            "scales",
            settings=(*NO_ROWS, *UNREAD, "sampling.image_temperature=0.2"),
        ),
        Head("pixel_flow", "flow", "pixels", FLOW, Drawing(50, "euler"), (*NO_ROWS, *UNREAD)),
    )
}
REFERENCE = HEADS["next_code"]  # whose positions say what a budget is


@dataclass(frozen=True)
class Budget:
    """What every head gets; a folder keeps it, and is of no other one."""

    positions: int = 8_000_000
    """Of the rows of `next_code`; the FLOPs of training on them are what each head gets."""
    scenes: int = 60_000
    """Conversations, and images for the tokenizers."""
    tokenizer_steps: int = 5_000
    samples: int = 100
    """Of each kind of request of the exam."""
    sweep_samples: int = 25
    """Those of the choice of a learning rate, and of checkpoints."""
    checkpoints: int = 4
    """That are examined, the last one included."""
    width: int = 256
    layers: int = 6
    precision: str = "bf16"
    compile: bool = False
    """Of the layers that are trained."""


@dataclass(frozen=True)
class Trial:
    """A training run of a head."""

    head: Head
    lr: float
    seed: int = 0

    @property
    def name(self) -> str:
        """What files are called."""
        return f"{self.head.name}-lr{self.lr:g}-seed{self.seed}"


@dataclass(frozen=True)
class Laboratory:
    """A folder in which heads are compared, and their budget."""

    folder: Path
    budget: Budget

    def claim(self) -> None:
        """Note the budget; UsageError where the folder is of another one."""
        path = self.folder / "budget.yaml"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            config.save(self.budget, path)
        found = config.load(Budget, path)
        differing = [
            f"{name} {old} (now {new})" for name, old, new in config.changes(found, self.budget)
        ]
        if differing:
            raise click.UsageError(
                f"{self.folder} is of another budget: {', '.join(differing)}; name another folder"
            )

    @property
    def conversations(self) -> Path:
        """Where the conversations lie that all heads learn from."""
        return self.folder / "conversations"

    def write_conversations(self, folder: Path, samples: int) -> Path:
        """Write conversations of the laboratory's mix, unless they are there."""
        mix = [word for name, share in MIX.items() for word in ("--mix", f"{name}={share}")]
        few = ("--max-objects", str(MAX_OBJECTS))
        return scenes(folder, samples, TALKS_SEED, self.log("data"), *few, *mix)

    def write_images(self) -> Path:
        """Write images for the tokenizers, unless they are there."""
        few = ("--kind", "images", "--max-objects", str(MAX_OBJECTS))
        return scenes(
            self.folder / "images", self.budget.scenes, IMAGES_SEED, self.log("data"), *few
        )

    def log(self, name: str) -> Path:
        """Where commands print to."""
        return self.folder / "logs" / f"{name}.txt"

    def tokenizer_run(self, kind: str) -> Path:
        """The directory of the run of a tokenizer."""
        return self.folder / "tokenizers" / kind

    def tokenizer_words(self, kind: str) -> tuple[str, ...]:
        """What of its recipe is changed."""
        _, changed = TOKENIZERS[kind]
        steps = PIXEL_BATCHES if kind == "pixels" else self.budget.tokenizer_steps
        words = (
            f"output={self.tokenizer_run(kind)}", f"shards={self.folder / 'images'}", *changed,
            f"schedule.num_steps={steps}", f"schedule.warmup_steps={min(200, steps // 10)}",
            f"schedule.decay_steps={steps // 3}", f"loop.save_every_steps={min(500, steps)}",
            "loop.keep_checkpoints=1", "loop.num_threads=1",
        )  # fmt: skip
        return words if kind == "pixels" else (*words, f"precision={self.budget.precision}")

    def tokenizer_recipe(self, kind: str) -> TokenizerRun:
        """The run of a tokenizer."""
        recipe, _ = TOKENIZERS[kind]
        return config.load(TokenizerRun, f"configs/{recipe}.yaml", self.tokenizer_words(kind))

    def train_tokenizer(self, kind: str) -> Path:
        """Train a tokenizer, as far as it is not, and return its run's directory."""
        run = self.tokenizer_run(kind)
        with alone(run):
            if not (run / "tokenizer").exists():
                self.write_images()
                path = ROOT / f"configs/{TOKENIZERS[kind][0]}.yaml"
                words = ("train", "tokenizer", path, *self.tokenizer_words(kind))
                call(*words, log=self.log(f"tokenizer-{kind}"), cpu=cpu_file(run))
        return run

    def shards(self, kind: str) -> Path:
        """Where the conversations lie that heads of a tokenizer learn from: as codes, where it has
        some.
        """
        return self.conversations if kind in AS_NUMBERS else self.folder / f"conversations-{kind}"

    def encode(self, kind: str) -> None:
        """Encode the conversations by a tokenizer with codes, unless that is done."""
        if kind not in AS_NUMBERS:
            tokenizer = self.train_tokenizer(kind) / "tokenizer"
            encoded(self.conversations, tokenizer, self.shards(kind), self.log("data"))

    def run(self, trial: Trial) -> Path:
        """The directory of the run of a trial."""
        return self.folder / "runs" / trial.name

    def words(self, trial: Trial, steps: int) -> tuple[str, ...]:
        """What of the recipe is changed for a trial of so many steps."""
        budget, head = self.budget, trial.head
        heads = max(1, budget.width // HEAD_WIDTH)
        every = math.ceil(steps / budget.checkpoints)
        return (
            f"output={self.run(trial)}",
            f"sources.scenes.shards={self.shards(head.tokenizer)}",
            f"tokenizer={self.tokenizer_run(head.tokenizer) / 'tokenizer'}",
            f"model.head={head.head}", f"model.width={budget.width}",
            f"model.num_layers={budget.layers}", f"model.num_heads={heads}",
            f"model.num_kv_heads={heads}", f"model.head_width={HEAD_WIDTH}",
            f"model.mlp_width={budget.width * 8 // 3}", f"optimizer.lr={trial.lr!r}",
            f"optimizer.muon_lr={MUON * trial.lr!r}", f"seed={trial.seed}",
            f"loader.seed={trial.seed}", f"schedule.num_steps={steps}",
            f"schedule.warmup_steps={min(100, steps // 10)}",
            f"schedule.decay_steps={steps * 5 // 8}", f"precision={budget.precision}",
            f"loop.save_every_steps={every}", f"loop.keep_every_steps={every}",
            "loop.keep_checkpoints=1", "loop.num_threads=1",
            f"engine.compile={str(budget.compile).lower()}", *head.settings,
        )  # fmt: skip

    def recipe(self, trial: Trial, steps: int) -> LmRun:
        """The run of a trial."""
        return config.load(LmRun, RECIPE, self.words(trial, steps))

    def train(self, trial: Trial, steps: int) -> Path | None:
        """Train a trial, as far as it is not, and return its run's directory; None where its loss
        or its gradient was not finite, which is noted.
        """
        run, log = self.run(trial), self.log(trial.name)
        note = run.with_name(f"{run.name}.diverged.txt")
        if (run / "bundle").exists():
            return run
        if note.exists():
            return None
        told = len(log.read_text()) if log.exists() else 0
        words = ("train", "lm", RECIPE, *self.words(trial, steps))
        status = status_of(*words, log=log, cpu=cpu_file(run))
        if status == 0:
            return run
        said = log.read_text()[told:]
        if status != STOPPED and DIVERGED in said:
            note.write_text(said)
            return None
        print(f"{trial.name} ended with {status}: see {log}")
        raise SystemExit(status)

"""Say what a run of the language model is told: its data, its model and how it learns."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unimodal.data.loader import LoaderConfig, rank_rows
from unimodal.data.sources import SourceConfig, mixtures
from unimodal.sampling import Sampling

from .heldout import HeldOutConfig
from .initial import ShapeConfig
from .loop import LoopConfig
from .lora import LoraConfig
from .objectives import LossConfig
from .optimizer import OptimizerConfig
from .schedule import ScheduleConfig
from .tower import TowerConfig
from .zero import EngineConfig


@dataclass(frozen=True)
class LmRun:
    """Configure a run of the language model."""

    output: Path
    """The run's directory; the trained bundle is written to `output/bundle`, adapters beside it to
    `output/adapter`."""
    sources: dict[str, SourceConfig]
    """What is learned from, by name."""
    tokenizer: Path
    """The directory of a trained image tokenizer, or of a published model, or that model's id on
    the Hugging Face hub."""
    schedule: ScheduleConfig
    weights: Path | None = None
    """A bundle to begin from, trained or grown, or a published model that draws, in a directory or
    on the hub, of which the run makes a bundle in `output/weights`: its transformer and its text
    tokenizer; None: from scratch."""
    new_tokenizer: bool = False
    """Whether `tokenizer` is another one than that of `weights`, with the same levels or as many
    codes, such as theirs trained further: codes keep their rows, and learn what they mean now."""
    tower: TowerConfig | None = None
    """A vision tower by which images that are given enter; None: that of `weights`, or else they
    enter as drawn ones do, as codes."""
    text_ids: int | None = None
    """The number of ids of the byte-level BPE, which is trained on the sources' own texts (None:
    1,024); with `weights`, that of the bundle."""
    lora: LoraConfig | None = None
    """Train adapters beside the frozen weights of `weights`, and the rows of special tokens and
    image codes; None: all weights."""
    seed: int = 0
    model: ShapeConfig | None = None
    """The transformer's shape; None: the bundle's with `weights`, or else the default."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    sampling: Sampling | None = None
    """The finished bundle's defaults for replies; training does not depend on them. None: those of
    `weights`, or else Sampling's own."""
    precision: Literal["auto", "fp32", "bf16", "fp8"] = "auto"
    """The dtype of matrix products; weights, their sums and the loss stay float32. bf16 is for GPUs
    and for CPUs with bfloat16 arithmetic (avx512_bf16 or amx_bf16): others do it in software. auto
    is bf16 where all machines of a start have it, else fp32; a change is noted in history.jsonl.
    fp8 is bf16 with the matrices of layers in float8, by torchao on GPUs that have it."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        few = self.text_ids is not None and self.text_ids < 256
        found = [f"text_ids {self.text_ids}: at least 256"] if few else []
        if self.seed < 0:
            found.append(f"seed {self.seed}: at least 0")
        if self.lora is not None and self.weights is None:
            found.append("lora: it needs `weights`, a bundle whose weights stay as they are")
        if self.tower is not None and self.tower.network is None and self.weights is None:
            found.append("tower.network: name a vision model, its folder, or efficientnet-lite0")
        if self.new_tokenizer and self.weights is None:
            found.append("new_tokenizer: without `weights` every tokenizer is new; leave it out")
        if self.engine.shards and self.optimizer.muon_lr is not None:
            found.append(
                "optimizer.muon_lr: Muon needs whole matrices, which ZeRO keeps in parts; leave it "
                "out with engine.deepspeed and engine.fsdp"
            )
        if self.engine.fsdp and self.lora is not None:
            found.append(
                "engine.fsdp: with lora the old rows of the tables stay what they are, which takes "
                "their whole gradients, and FSDP2 cuts them first; take engine.deepspeed"
            )
        if self.engine.shards and self.optimizer.moments == "8bit":
            found.append(
                "optimizer.moments 8bit: ZeRO and FSDP2 keep moments in parts; leave it out with "
                "engine.deepspeed and engine.fsdp"
            )
        if not self.sources:
            found.append("sources: name at least one, as sources.NAME.shards=FOLDER")
        else:
            try:
                mixtures(self.sources, self.loader.stages, self.loader.images)
            except ValueError as error:
                found.append(f"loader: {error}")
        return found

    def unreached(self) -> list[str]:
        """Say which stages of the data begin only behind the last step."""
        steps = self.schedule.num_steps
        return [
            f"note: loader.stages from step {stage.from_step} is not reached: num_steps is {steps}"
            for stage in self.loader.stages
            if stage.from_step >= steps
        ]

    def rank_rows(self, world_size: int) -> int:
        """Return the rows of a batch that each of so many ranks takes, those of padding included.

        Where ranks divide the batch there are none; micro-batches must divide the rows then. Ranks
        that share rows (engine.sequence_parallel) are one here.
        """
        batch_rows, groups = self.loader.batch_rows, world_size // self.engine.sequence_parallel
        if batch_rows % groups == 0:
            return batch_rows // groups
        return rank_rows(batch_rows, groups, self.engine.micro_batch_rows or 1)

    def rank_problems(self, world_size: int) -> list[str]:
        """Return what is wrong with how so many ranks share a batch, one sentence each."""
        batch_rows, group_rows = self.loader.batch_rows, self.loader.group_rows
        size = self.engine.sequence_parallel
        if world_size % size:
            below, above = world_size // size * size, -(-world_size // size) * size
            return [
                f"engine.sequence_parallel {size} does not divide {world_size} ranks: launch "
                f"{f'{below} or {above}' if below else above}"
            ]
        if world_size > batch_rows * size:
            return [
                f"loader.batch_rows {batch_rows} does not divide among {world_size} ranks: launch "
                f"at most {batch_rows * size}"
            ]
        micro_batch_rows = self.engine.micro_batch_rows or self.rank_rows(world_size)
        at_once = min(batch_rows, micro_batch_rows * world_size // size)
        if at_once % group_rows == 0 or group_rows % at_once == 0:
            return []
        nearest = " or ".join(map(str, self._nearest(world_size))) or "another number of"
        return [
            f"engine.micro_batch_rows {micro_batch_rows} on {world_size} ranks: the {at_once} rows "
            f"that they compute at the same time are no whole groups of loader.group_rows "
            f"{group_rows}, whose rows cost the same; change micro_batch_rows, or launch {nearest} "
            "ranks"
        ]

    def padding_note(self, world_size: int) -> str | None:
        """Say how much of a batch so many ranks fill up with padding; None where it is nothing."""
        rows, size = self.loader.batch_rows, self.engine.sequence_parallel
        places = self.rank_rows(world_size) * world_size // size
        if places == rows:
            return None
        nearest = [one * size for one in range(1, rows + 1) if rows % one == 0]
        below = max(one for one in nearest if one <= world_size)
        above = min(one for one in nearest if one >= world_size)
        return (
            f"note: {world_size} ranks do not divide the {rows} rows of loader.batch_rows: each "
            f"takes {places * size // world_size}, and {places - rows} of {places} "
            f"({1 - rows / places:.0%}) are padding; {below} or {above} ranks have none"
        )

    def _nearest(self, world_size: int) -> list[int]:
        """Return the numbers of ranks below and above that compute whole groups at once."""
        group_rows, size = self.loader.group_rows, self.engine.sequence_parallel
        fitting = [
            one * size
            for one in range(1, self.loader.batch_rows + 1)
            for mine in [self.engine.micro_batch_rows or self.rank_rows(one * size)]
            for at_once in [min(self.loader.batch_rows, one * mine)]
            if at_once % group_rows == 0 or group_rows % at_once == 0
        ]
        below = [one for one in fitting if one < world_size][-1:]
        return below + [one for one in fitting if one > world_size][:1]

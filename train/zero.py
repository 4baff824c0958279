"""Train over many processes, whose shards of the model and its state DeepSpeed's ZeRO keeps.

`Engine` (engine.py) is a single process; `ZeroEngine` takes the same steps over many (Rajbhandari
et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", arXiv:1910.02054):
the gradient is that of the global batch's loss, whatever the ranks and micro-batches. No other file
knows DeepSpeed.
"""

import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unimodal.kernels import Kernel, why_unavailable
from unimodal.mlp import Experts

from .checkpoint import EMA, MASTER, Checkpoint, ParameterShard
from .engine import Engine, adam_steps, set_rates
from .fsdp import FsdpEngine, FsdpSettings, fill
from .learner import Learner
from .offloading import offloading
from .optimizer import OptimizerConfig, build, whole_shape
from .ranks import Ranks, connect_alone
from .schedule import ScheduleConfig
from .zero_settings import ZeroSettings

M = TypeVar("M", bound=nn.Module)
MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW


@dataclass(frozen=True)
class EngineConfig:
    """Configure how the work of a step is done; no setting here changes what is learned."""

    deepspeed: Path | None = None
    """A DeepSpeed JSON file, such as configs/zero3.json; None: without DeepSpeed."""
    fsdp: bool = False
    """Shard weights, gradients and the optimizer's state by torch's FSDP2, which needs no
    DeepSpeed. Neither: one process alone."""
    micro_batch_rows: int | None = None
    """Rows of a rank that go through the model at once; None: all rows of a step."""
    recompute: bool = False
    """Keep no activations inside a layer and compute them again for the backward pass: a third
    more work, a fraction of the memory."""
    activation_gb: float | None = None
    """Let as few layers recompute as keep the layers' activations of a micro-batch within so many
    GB (10^9 bytes); None: all of them with `recompute`, or else none."""
    offload_activations: bool = False
    """Keep what the backward pass needs in the host's memory: slower, and little of the GPU's.
    With `recompute` these are the inputs of layers alone, which are few."""
    compile: bool = False
    """Compile each layer with torch.compile (needs a C++ compiler or a GPU)."""
    attention: Kernel = "auto"
    """The kernel that computes attention: flash (flash-attn), flex (FlexAttention), sdpa
    (documents of one length together), or auto, the first of them that runs here; without a GPU it
    is sdpa."""
    sequence_parallel: int = 1
    """How many neighbouring ranks share rows: each takes a part of their tokens, for documents that
    are too long for one GPU. It divides the model's heads, loader.sequence_length and the ranks."""
    timeout_s: float = 1800
    """How long ranks wait for one another, at the start and later."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [] if self.timeout_s > 0 else [f"timeout_s {self.timeout_s}: above 0"]
        if self.micro_batch_rows is not None and self.micro_batch_rows < 1:
            found.append(f"micro_batch_rows {self.micro_batch_rows}: at least 1")
        if self.sequence_parallel < 1:
            found.append(f"sequence_parallel {self.sequence_parallel}: at least 1")
        if self.fsdp and self.deepspeed is not None:
            found.append(f"fsdp beside deepspeed {self.deepspeed}: one of them shards a run")
        if self.activation_gb is not None and self.recompute:
            found.append(
                "activation_gb: recompute computes all layers again; leave one of them out"
            )
        if self.activation_gb is not None and not self.activation_gb > 0:
            found.append(f"activation_gb {self.activation_gb}: above 0")
        if self.deepspeed is not None:
            try:
                ZeroSettings.read(self.deepspeed, 1, 1, 1.0, False)
            except ValueError as error:
                found.append(str(error).removeprefix("engine."))
        return found

    def obstacles(self) -> list[str]:
        """Return what this machine lacks, one sentence each; a plan may be made without it."""
        found = []
        if self.deepspeed is not None and find_spec("deepspeed") is None:
            found.append("engine.deepspeed: not installed; pip install 'unimodal[train]'")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.offload_activations and device.type == "cpu":
            found.append("engine.offload_activations: without a GPU they are in the host's memory "
                         "as it is; leave it out")  # fmt: skip
        if problem := why_unavailable(self.attention, device, torch.bfloat16):
            found.append(f"engine.attention {self.attention}: {problem}")
        # What torch.compile takes, unless CXX names another.
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        if self.compile and device.type == "cpu" and which(compiler) is None:
            found.append(
                f"engine.compile: needs a C++ compiler without a GPU, and there is no {compiler}: "
                "install it, name another one in the environment's CXX, or leave compile out"
            )
        return found

    @property
    def shards(self) -> bool:
        """Return whether many ranks can share a model."""
        return self.fsdp or self.deepspeed is not None

    def sharding(self, rows: int, clip: float, bf16: bool) -> ZeroSettings | FsdpSettings | None:
        """Return how a model is sharded; None: not at all. See `zero`."""
        zero = self.zero(rows, clip, bf16)
        return FsdpSettings(bf16) if self.fsdp else zero

    def zero(self, rows: int, clip: float, bf16: bool) -> ZeroSettings | None:
        """Return DeepSpeed's settings for so many `rows` of a rank; None without DeepSpeed.

        Raises ValueError where micro_batch_rows does not divide them.
        """
        micro_batch_rows = self.micro_batch_rows or rows
        if rows % micro_batch_rows:
            raise ValueError(
                f"engine.micro_batch_rows {micro_batch_rows} does not divide {rows} rows of a rank"
            )
        if self.deepspeed is not None:
            return ZeroSettings.read(
                self.deepspeed, micro_batch_rows, rows // micro_batch_rows, clip, bf16
            )
        return None


class ZeroEngine(Engine):
    """Train one learner over many ranks, or one, each of which holds a shard of all its state."""

    def __init__(
        self,
        learner: Learner,
        optimizers: list[torch.optim.Optimizer],
        schedule: ScheduleConfig,
        clip: float,
        ema_decay: float | None,
        ranks: Ranks,
        settings: ZeroSettings,
    ):
        """Take a learner whose model comes from `sharded` with the same `settings`, and one
        optimizer that works on each weight alone.
        """
        super().__init__(learner, optimizers, schedule, clip, ema_decay, ranks)
        assert len(optimizers) == 1, "Muon is refused beside ZeRO"
        deepspeed = _deepspeed()
        self.stage = settings.stage
        if self.stage == 3:  # it gathers where a module is called, and these are used outside
            for parameter in learner.outside:
                deepspeed.zero.register_external_parameter(learner, parameter)
            # An expert is called where a token chose it, and its weights are gathered on all ranks:
            # so all of a layer's are, at once.
            if any(isinstance(part, Experts) for part in learner.modules()):
                deepspeed.utils.set_z3_leaf_modules(learner, [Experts])
        self.engine, self.zero, *_ = deepspeed.initialize(
            model=learner,
            optimizer=optimizers[0],
            config=settings.deepspeed,
            dist_init_required=False,
        )

    @torch.no_grad()
    def parameter_shards(self) -> dict[str, ParameterShard]:
        """Return the range of each parameter that lies on this rank, as live tensors."""
        found = {}
        for name, parameter in self.named.items():
            where = self._where(parameter)
            if where is None:
                continue
            tensors = self._local(parameter, where)
            if self.ema:
                tensors[EMA] = self.ema[name]
            found[name] = ParameterShard(whole_shape(parameter), where[0], tensors)
        return found

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same model and optimizer, of any number of ranks.

        The learner's weights must be the checkpoint's already (see `from_checkpoint`): here only
        the masters, the moments and the EMA are set. Raises ValueError for another model's.
        """
        self._check(checkpoint)
        # DeepSpeed makes moments in the first step; here they must be there before, to be filled.
        for flat in self._flats():
            state = {moment: torch.zeros_like(flat) for moment in MOMENTS}
            self.zero.optimizer.state[flat] = {"step": adam_steps(checkpoint, flat), **state}
        for name, parameter in self.named.items():
            if (where := self._where(parameter)) is None:
                continue
            for kind, tensor in self._local(parameter, where).items():
                tensor.copy_(checkpoint.read(name, kind, *where))
            if self.ema_decay is not None:
                ema = checkpoint.read(name, EMA, *where)
                self.ema[name] = ema.to(self.engine.device)

    def _forward(self, micro_batch: Any, norms: Mapping[str, float] | None) -> dict[str, Tensor]:
        with offloading(self.offloads):
            return self.engine(micro_batch, norms)

    def _backward(self, total: Tensor, is_last: bool) -> None:
        # ZeRO takes the mean over ranks and micro-batches of gradients that here add up to the
        # global batch's: the former is undone by a factor, the latter by scale_wrt_gas.
        self.engine.backward(total * self.ranks.world_size, scale_wrt_gas=False)
        if not is_last:
            self.engine.step()  # counts the micro-batch, and no more

    def _forget(self) -> None:
        pass  # the run stops: what was gathered goes with it

    def _update(self, factor: float) -> float:
        set_rates(self.zero, factor)
        self.engine.step()
        if not self.engine.was_step_applied():  # it is left out without a word
            return math.nan
        return float(self.engine.get_global_grad_norm())

    def _masters(self) -> dict[str, Tensor]:
        return {name: shard.tensors[MASTER] for name, shard in self.parameter_shards().items()}

    def _where(self, parameter: Any) -> tuple[int, int] | None:
        """Return which range of the flat parameter lies here; None: nothing of it."""
        if self.stage == 3:  # each parameter is cut into equal ranges, one for each rank
            length = parameter.ds_tensor.ds_numel
            start = dist.get_rank() * length if dist.is_initialized() else 0
            stop = min(start + length, parameter.ds_numel)
            return (start, stop) if start < stop else None
        # Stages 1 and 2 cut a group's parameters, laid end to end: a rank has whole ones, and parts
        # of two at most.
        if parameter._hp_mapping is None:
            return None
        address = parameter._hp_mapping.lp_fragment_address
        return address.start, address.start + address.numel

    def _local(self, parameter: Any, where: tuple[int, int]) -> dict[str, Tensor]:
        """Return the live tensors of that range by kind; moments once there are some."""
        from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_optimizer_state

        length = where[1] - where[0]
        has_state = all(self.zero.optimizer.state.get(flat) for flat in self._flats())
        kinds = MOMENTS if has_state else ()
        if self.stage == 3:  # the last range is filled up to the length of the others
            found = {MASTER: safe_get_local_fp32_param(parameter)}
            found |= {kind: safe_get_local_optimizer_state(parameter, kind) for kind in kinds}
            return {kind: tensor[:length] for kind, tensor in found.items()}
        mapping = parameter._hp_mapping  # lp: the low-precision parameter, hp: its float32 master
        state = self.zero.optimizer.state[self._flats()[mapping.param_group_index]]
        address = mapping.hp_fragment_address
        found = {MASTER: mapping.get_hp_fragment()}
        return found | {k: state[k].narrow(0, address.start, address.numel) for k in kinds}

    def _flats(self) -> list[Tensor]:
        """Return the flat master weights that the optimizer steps."""
        if self.stage == 3:
            return self.zero.fp32_partitioned_groups_flat
        for name in ("single_partition_of_fp32_groups", "fp32_groups_flat_partition"):
            if hasattr(self.zero, name):
                return getattr(self.zero, name)
        raise AssertionError("ZeRO keeps flat master weights")


@dataclass(frozen=True)
class Build(Generic[M]):
    """Say how a model comes to be: `make` makes modules, `fill` gives each parameter's values."""

    make: Callable[[], M]
    fill: Callable[[str, tuple[int, ...]], Tensor]


def sharded(
    build: Build[M], settings: ZeroSettings | FsdpSettings | None, device: str, ranks: Ranks
) -> M:
    """Return the model of a Build on the device.

    Under ZeRO-3 no rank ever holds more of it than its shards and one whole parameter, which rank 0
    fills. Under FSDP2 each rank fills its shards of the layers, and what is not in a layer, which
    `engine` shards. With other settings, or None, each rank holds and fills all of it.
    """
    if isinstance(settings, FsdpSettings):
        return _sharded_layers(build, settings, device)
    is_cut = settings is not None and settings.stage == 3
    if settings is not None and is_cut:
        with _partitioning(settings):
            model = build.make()
    else:
        with torch.device("meta"):
            model = build.make()
        model.to_empty(device=device)
    for name, parameter in model.named_parameters():
        with _gathered(parameter) if is_cut else nullcontext(), torch.no_grad():
            if not is_cut or ranks.is_first:
                parameter.copy_(build.fill(name, tuple(parameter.shape)))
    return model


def _sharded_layers(build: Build, settings: FsdpSettings, device: str) -> Any:
    with torch.device("meta"):
        model: Any = build.make()
    settings.shard(model.model.layers, device)
    model.to_empty(device=device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fill(parameter, partial(build.fill, name, tuple(parameter.shape)))
    return model


def engine(
    learner: Learner, optimizer: OptimizerConfig, schedule: ScheduleConfig, ranks: Ranks,
    settings: ZeroSettings | FsdpSettings | None, config: EngineConfig, bf16: bool,
) -> Engine:  # fmt: skip
    """Return the engine of a learner whose model comes from `sharded` with the same settings."""
    if config.compile:
        _compile(learner.model.model.layers, settings)
    if isinstance(settings, FsdpSettings):  # what is in no layer, before optimizers hold it
        settings.shard([learner], next(learner.parameters()).device.type)
    dtype = torch.bfloat16 if bf16 else torch.float32
    optimizers = build(learner.model, optimizer, "model.layers.", dtype, learner.no_decay)
    common = learner, optimizers, schedule, optimizer.clip, optimizer.ema_decay, ranks
    found: Engine
    if isinstance(settings, FsdpSettings):
        found = FsdpEngine(*common)
    elif settings is None:
        found = Engine(*common)
    else:
        found = ZeroEngine(*common, settings)
    found.offloads = config.offload_activations
    return found


def _compile(layers: nn.ModuleList, settings: ZeroSettings | FsdpSettings | None) -> None:
    """Compile the layers' forward passes."""
    if isinstance(settings, ZeroSettings) and settings.stage == 3:
        gather_whole(layers)
    for layer in layers:
        layer.forward = torch.compile(layer.forward)


def gather_whole(layers: nn.ModuleList) -> None:
    """Let ZeRO-3 gather each layer as a whole around its forward pass.

    Without it hooks break the graph of a compiled layer at every projection.
    """
    _deepspeed().utils.set_z3_leaf_modules(layers, [type(layers[0])])


def _deepspeed() -> Any:
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed  # seconds

    # What DeepSpeed calls has a new name in torch: nothing that a user could change.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.", FutureWarning)
    # Compiled for minutes on a CPU, and used by inference alone.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.utils.logger.setLevel("WARNING")
    os.environ.setdefault("LOCAL_RANK", "0")  # is asked for, of one process alone too
    if not dist.is_initialized():  # one process alone, launched or not
        connect_alone()
    deepspeed.init_distributed(dist_init_required=False)
    return deepspeed


@contextmanager
def _partitioning(settings: ZeroSettings) -> Iterator[None]:
    """Make modules inside keep this rank's shard of each parameter only."""
    deepspeed = _deepspeed()
    # The dtype is left to the settings: one that is given is misread where there is no float16.
    with deepspeed.zero.Init(config_dict_or_path=settings.deepspeed, mem_efficient_linear=False):
        yield


def whole(parameter: nn.Parameter) -> Any:
    """Return a context in which a parameter is whole on every rank, to be read; all enter it."""
    if hasattr(parameter, "ds_id"):
        return _deepspeed().zero.GatheredParameters([parameter])
    return nullcontext()


def _gathered(parameter: nn.Parameter) -> Any:
    return _deepspeed().zero.GatheredParameters([parameter], modifier_rank=0)

"""How a plan is shown: tables of a terminal."""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table

from .assumptions import Assumptions
from .plan import Plan
from .scale import Forecast

WHEN = {"always": "", "pass": "during a pass", "update": "during an update"}


def one(found: Forecast) -> RenderableType:
    """Return the tables of a plan for one number of GPUs."""
    made = found.plan
    memory = Table("memory of a GPU", title_justify="left")
    memory.add_column("GB", justify="right")
    memory.add_column("on the host, GB", justify="right")
    memory.add_column("when, how")
    for item in made.memory:
        words = ", ".join(word for word in (WHEN[item.when], item.note) if word)
        host = _gb(item.host_bytes) if item.host_bytes else ""
        memory.add_row(item.name, _gb(item.gpu_bytes), host, words)
    memory.add_section()
    memory.add_row("most at once", _gb(made.total_bytes), "", f"of {made.memory_gb:g}")
    numbers = Table("predicted", "", show_header=True)
    for name, value in [*_numbers(made), *_run_numbers(found)]:
        numbers.add_row(name, value)
    return Group(memory, numbers)


def _numbers(made: Plan) -> list[tuple[str, str]]:
    zero = f"ZeRO-{made.stage}" if made.stage else "one process, no ZeRO"
    zero = "FSDP2" if made.is_fsdp else zero
    rows = f"{made.accumulation} x {made.micro_batch_rows} rows of each GPU"
    sent = ", ".join(f"{_gb(size)} GB {name}" for name, size in made.sent_bytes.items())
    reached = made.flops / made.num_gpus / made.likely_s / 1e12
    model = f"{made.parameters / 1e9:.3g} billion parameters, {made.shape.num_ids:,} ids"
    if made.trained < made.parameters:
        model += f"; {made.trained / 1e9:.3g} billion train"
    return [
        ("model", model),
        ("GPUs", f"{made.num_gpus} x {made.gpu}, {zero}"),
        ("a step", f"{rows}: {made.tokens:,} tokens"),
        ("sent by a GPU in a step", sent or "nothing"),
        ("useful FLOPs of a step", f"{made.flops:.3g} (each row one document)"),
        ("seconds of a step", f"{made.likely_s:.3g}; {made.limit_s:.3g} at the GPU's limit"),
        ("tokens a second", f"{made.tokens_per_s:,.0f}; {reached:.0f} TFLOP/s of each GPU"),
        ("a checkpoint", f"{_gb(made.checkpoint_bytes)} GB of all ranks; disk for "
                         f"{_gb(made.disk_bytes)} GB"),
        ("host memory of a rank", f"{_gb(made.host_bytes)} GB beside its loader"),
    ]  # fmt: skip


def _run_numbers(found: Forecast) -> list[tuple[str, str]]:
    price = "" if found.usd is None else f"; {found.usd:,.0f} USD"
    took = found.plan.transfer
    links = f"{took.node_s:.3g} within a node, {took.network_s:.3g} across nodes at the same time"
    return [
        ("seconds of sending", f"{took.seconds:.3g}: {links}, {took.latency_s:.3g} of latency"),
        ("the run", f"{found.num_steps:,} steps: {found.hours:,.3g} hours, "
                    f"{found.gpu_hours:,.0f} GPU-hours{price}"),
        ("of which useful", f"{found.saved.share:.1%}, saved every {found.saved.every_steps} "
                            f"steps; at best {found.best.share:.1%}, every "
                            f"{found.best.every_steps}"),
    ]  # fmt: skip


def many(
    found: Iterable[Forecast], refused: dict[int, str], assumed: Assumptions
) -> RenderableType:
    """Return the tables of several numbers of GPUs, with what is assumed at their head."""
    found = list(found)
    parts: list[RenderableType] = [*assumptions(found[0].plan, assumed)]
    parts += [_memory(found), _steps(found), _runs(found)]
    parts += [f"{count} GPUs: {why}" for count, why in refused.items()]
    return Group(*parts)


def assumptions(made: Plan, assumed: Assumptions) -> list[str]:
    """Return what is assumed, a line each."""
    return [
        f"Predicted, not run. {made.gpu} with {made.memory_gb:g} GB at the pace of the best "
        "published runs; sending hides behind arithmetic as far as it can; the run's tokens stay, "
        "and a batch has a row or more for each GPU.",
        *(f"{line[0].upper()}{line[1:]}." for line in assumed.words()),
    ]


def _table(title: str, names: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Table:
    """Return a table that needs 80 columns or fewer."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, justify="right", vertical="bottom")
    for row in rows:
        table.add_row(*row)
    return table


def _memory(found: list[Forecast]) -> Table:
    names = ["GPUs", "rows of a step", "at once", "GB of a GPU", "activations", "gathered", "fits"]
    rows = (
        (
            f"{one.plan.num_gpus:,}", f"{one.batch_rows:,}", f"{one.plan.micro_batch_rows}",
            _gb(one.plan.total_bytes), _gb(one.plan.bytes_of("activations")),
            _gb(one.plan.bytes_of("gathered parameters")), "yes" if one.plan.fits else "no",
        )
        for one in found
    )  # fmt: skip
    return _table("memory of a GPU", names, rows)


def _steps(found: list[Forecast]) -> Table:
    names = ["GPUs", "10^6 tokens", "computing", "sent in nodes", "across", "latency", "a step"]
    rows = (
        (
            f"{one.plan.num_gpus:,}", f"{one.plan.tokens / 1e6:,.2f}", f"{one.plan.computed_s:.2f}",
            *(f"{part:.2f}" for part in one.plan.transfer), f"{one.plan.likely_s:.2f}",
            f"{one.plan.tokens_per_s:,.0f}",
        )
        for one in found
    )  # fmt: skip
    return _table("seconds of a step", [*names, "tokens/s"], rows)


def _runs(found: list[Forecast]) -> Table:
    names = ["GPUs", "steps", "hours", "GPU-hours", "USD", "useful", "saved every", "best"]
    rows = (
        (
            f"{one.plan.num_gpus:,}", f"{one.num_steps:,}", f"{one.hours:,.1f}",
            f"{one.gpu_hours:,.0f}", "" if one.usd is None else f"{one.usd:,.0f}",
            f"{one.saved.share:.1%}", f"{one.saved.every_steps:,}",
            f"{one.best.share:.1%}", f"{one.best.every_steps:,}",
        )
        for one in found
    )  # fmt: skip
    return _table("the run, with failures and stragglers", [*names, "saved every"], rows)


def verdict(made: Plan) -> str:
    """Say in a line whether it fits, and with which change it would."""
    if made.fits:
        return "fits"
    short = f"does not fit: {_gb(made.total_bytes)} GB of {made.memory_gb:g}"
    if not made.change:
        return f"{short}; no change that was tried makes it fit: give more GPUs, or a smaller model"
    words = [
        f"--gpus {value}" if name == "gpus" else f"{name}={_word(value)}"
        for name, value in made.change.items()
    ]
    return f"{short}; it would with {' '.join(words)}"


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _gb(size: int) -> str:
    return f"{size / 1e9:,.2f}"

"""Say what may change where a run goes on, and from which step on a change holds.

A run that was stopped is no dead end: what does not change what is learned may change, what does
may change where the user says so (`--accept-change`), and for the few things that cannot change
there is a way on by the run's bundle. SETTINGS and CONTENTS are the whole table, which
docs/resuming.md shows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimodal import config as configuration

from .history import Change

FREE, ACCEPTED, NEVER = "yes", "with --accept-change", "no"
NEXT_STEP = "the next step"
# Rows are planned in windows; a changed plan of the window in hand is gone on with at its row.
NEXT_ROWS = "the next step; of the window of rows in hand up to a quarter may come twice or never"


@dataclass(frozen=True)
class Rule:
    """Say whether something may change, and from when on that holds."""

    may: str
    """FREE, ACCEPTED or NEVER."""
    holds: str
    """From when on, or why not."""


NO = Rule(NEVER, "")
# By key, or what keys begin with; the longest wins.
SETTINGS = {
    "output": Rule(FREE, "at once: the folder was moved"),
    "loop": Rule(FREE, "at once"),
    "loop.skip_batches": Rule(FREE, "the step whose batch has the digest"),
    "loop.spikes": Rule(FREE, f"{NEXT_STEP}; batches that were left out stay left out"),
    "engine": Rule(FREE, "at once; losses are equal up to the order of sums"),
    "precision": Rule(FREE, f"{NEXT_STEP}; bit for bit a run is the same at equal precision only"),
    "sampling": Rule(FREE, "the bundle that is written at the end"),
    "held_out": Rule(FREE, "the next measurement"),
    "schedule": Rule(FREE, NEXT_STEP),
    "tokenizer": Rule(FREE, "at once: where it lies; it must be the same one"),
    "tower": NO,
    "tower.network": Rule(FREE, "at once: where it lies; it must be the same one"),
    "weights": Rule(FREE, "at once: where they lie; they must be the same ones"),
    "weights from or to null": NO,
    "freeze_codes": NO,
    "decoder_storage": Rule(FREE, "the tokenizer that is written at the end"),
    "new_tokenizer": NO,
    "shards": Rule(FREE, "at once: where they lie; what they hold is compared"),
    "loader.bad_share": Rule(FREE, "at once"),
    "optimizer": Rule(ACCEPTED, NEXT_STEP),
    "optimizer.muon_lr from or to null": NO,
    "optimizer.ema_decay from null": NO,
    "loss": Rule(ACCEPTED, NEXT_STEP),
    "loss.adversarial from or to null": NO,
    "loss.adversarial.width": NO,
    "loss.adversarial.num_layers": NO,
    "loss.semantic from or to null": NO,
    "loss.semantic.width": NO,
    "loss.semantic.model": NO,
    "sources": Rule(ACCEPTED, NEXT_ROWS),
    "sources.*.shards": Rule(FREE, "at once: where they lie; what they hold is compared"),
    "sources.*.index": Rule(FREE, "at once: it is checked against the shards"),
    "loader": Rule(ACCEPTED, NEXT_ROWS),
    "loader.stages": Rule(ACCEPTED, "the from_step of each that is new or another"),
    "loader.stages that have begun": Rule(NEVER, "add one that is to come"),
    "loader.sequence_length": NO,
    "loader.batch_rows": NO,
    "loader.group_rows": NO,
    "loader.window_rows": NO,
    "loader.seed": NO,
    "batch_images": Rule(ACCEPTED, NEXT_STEP),
    "images": Rule(ACCEPTED, NEXT_STEP),
    "index": Rule(FREE, "at once: it is checked against the shards"),
    "bad_share": Rule(FREE, "at once"),
    "min_usage": Rule(FREE, "at once"),
    "seed": NO,
    "text_ids": NO,
    "model": NO,
    "lora": NO,
    "": Rule(ACCEPTED, NEXT_STEP),
}
CONTENTS = {
    "shards": Rule(ACCEPTED, NEXT_ROWS),
    "held-out shards": Rule(FREE, "the next measurement"),
    "tokenizer": NO,
    "tower": NO,
    "weights": NO,
}


def settings(old: Any, new: Any, step: int) -> list[tuple[Change, Rule]]:
    """Return what differs between two configs of a run that has taken `step` steps, each with its
    rule.
    """
    found = [Change(*one) for one in configuration.changes(old, new)]
    return [(change, SETTINGS[row(change, step)]) for change in found]


def contents(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[Change, Rule]]:
    """Return what a run reads otherwise than it did, by hashes, each with its rule; what it did not
    read before is no change.
    """
    names = [name for name in new if name in old and old[name] != new[name]]
    return [
        (Change(f"{name} (contents)", old[name], new[name]), CONTENTS[name.partition(" of ")[0]])
        for name in names
    ]


def row(change: Change, step: int) -> str:
    """Return the name of a change's row among SETTINGS."""
    key, words = change.key, change.key.split(".")
    if change.old is None or change.new is None:
        if f"{key} from or to null" in SETTINGS:
            return f"{key} from or to null"
    if key == "optimizer.ema_decay" and change.old is None:
        return f"{key} from null"
    if key == "loader.stages" and _begun(change.old, step) != _begun(change.new, step):
        return f"{key} that have begun"
    if words[0] == "sources" and f"sources.*.{words[-1]}" in SETTINGS:
        return f"sources.*.{words[-1]}"
    begins = (".".join(words[:length]) for length in range(len(words), -1, -1))
    return next(begin for begin in begins if begin in SETTINGS)


def _begun(stages: Sequence[Mapping[str, Any]], step: int) -> list[Mapping[str, Any]]:
    return [stage for stage in stages if stage["from_step"] <= step]


def refused(
    output: Path, step: int, found: Sequence[tuple[Change, Rule]], accepts: bool, has_bundle: bool
) -> str | None:
    """Return why a run in `output`, of so many steps, cannot go on with these changes; None where
    it can. `accepts`: the user has said --accept-change; `has_bundle`: it ends with a bundle.
    """
    wrong = [one for one in found if one[1].may != FREE and not (accepts and one[1].may != NEVER)]
    if not wrong:
        return None
    lines = [_head(output, step, [change for change, _ in wrong]), *_lines(output, wrong)]
    kinds = {rule.may for _, rule in wrong}
    if ACCEPTED in kinds:
        lines.append("add --accept-change to go on with what may change, or put it back")
    if NEVER in kinds:
        lines.append("what cannot change: put it back, or give another output")
    if NEVER in kinds and has_bundle:
        lines.append(
            f"or end this run here and begin another from its bundle, weights={output}/bundle:\n"
            f"    unimodal train lm {output}/config.yaml schedule.num_steps={step} "
            "schedule.warmup_steps=0 schedule.decay_steps=0 schedule.stages=[]"
        )
    return "\n  ".join(lines)


def _head(output: Path, step: int, wrong: Sequence[Change]) -> str:
    keys = [change.key for change in wrong if not change.key.endswith(")")]
    other = f"another {', '.join(keys)}" if keys else "other data"
    return f"{output} holds a run with {other}, after {step:,} steps:"


def _lines(output: Path, wrong: Sequence[tuple[Change, Rule]]) -> Iterator[str]:
    for change, rule in wrong:
        name, _, is_content = change.key.partition(" (")
        if is_content:
            hashes = f"{str(change.old)[:12]} -> {str(change.new)[:12]}"
            said = f"{name}: not what {output} began with; put it back ({hashes})"
        else:
            said = str(change)
        if rule.may == NEVER:
            yield f"{said}; cannot change{': ' if rule.holds else ''}{rule.holds}"
        else:
            yield f"{said}; holds from {rule.holds}"

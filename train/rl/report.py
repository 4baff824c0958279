"""What is logged of the samples of a step: sums that ranks add up, and the means made of them.

A fact is a number of a reply, such as `right`. Beside the mean of all, each kind of prompt has its
own, as `right/drawing/position`.
"""

from collections.abc import Mapping, Sequence

from .samples import Sample

FACTS = (
    "reward", "right", "second", "planned", "words_instead", "refused", "no_signal", "words",
    "images",
)  # fmt: skip
SUM, COUNT = "sum of ", "count of "


def sums(samples: Sequence[Sample], kinds: Sequence[str]) -> dict[str, float]:
    """Return the sum of each fact over the samples that have it, and their number, of all and of
    each kind: the same names whatever the samples.
    """
    found: dict[str, float] = {}
    for fact in FACTS:
        for kind in (None, *kinds):
            values = [
                value for one in samples
                if kind in (None, one.kind) and (value := _value(one, fact)) is not None
            ]  # fmt: skip
            name = fact if kind is None else f"{fact}/{kind}"
            found |= {SUM + name: sum(values), COUNT + name: float(len(values))}
    return found


def means(counts: Mapping[str, float]) -> dict[str, float]:
    """Return the mean of each fact that any sample has, and of the replies' numbers of choices."""
    names = [name.removeprefix(SUM) for name in counts if name.startswith(SUM)]
    found = {
        name: counts[SUM + name] / number for name in names if (number := counts[COUNT + name])
    }
    return found | {"choices_per_reply": counts["choices"] / counts["replies"]}


def _value(sample: Sample, fact: str) -> float | None:
    return sample.reward if fact == "reward" else sample.facts.get(fact)

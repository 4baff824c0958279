"""The items of a result that can be paired with another's: what was asked, and what the answer is
worth.

In: a `Result`. Out: `Item`s, and the hashes of what was asked.

1. `items` takes from each prediction its part, kind, key and worth, as its evaluation scores them:
   what is a baseline (blind, shuffled) or was held out and is scored apart is not an item.
2. Items of one prompt belong to one cluster: GenEval's images of a prompt, questions about one
   image, drawings of the same words. What a judge was asked about a prompt is one item.
3. `asked` says by hashes what was asked, and refuses predictions that are not all of it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..chain_exam import CHAINS
from ..judged.benchmarks import benchmark_of
from ..judged.evaluation import name_of
from ..scene_request import BLIND
from ..scene_requests import PARTS, WORLD_PARTS
from ..score import Prediction, digest
from ..vqa.asking import SEEN
from ..vqa.evaluation import digest_of
from ..vqa.tasks import NAMES, task_of
from .stored import Result

ALL = "all"  # the kind of items that have none
OVERALL = "overall"  # the score of all kinds of a part
MEASURED = ("right", "psnr_db", "ssim")  # of a tokenizer's images
HASHES = ("prompts", "people_prompts", "questions", "images", "things")  # in recipes
NOTHING = digest([])  # which recipes once named where nothing was asked
LACKING = (KeyError, IndexError, TypeError)  # what a prediction of another shape raises


@dataclass(frozen=True)
class Item:
    """One thing that was asked of both: `key` names it, `cluster` what it depends on with others.

    value: what the answer is worth; `is_verdict` where that is 0 or 1.
    """

    part: str
    kind: str
    key: str
    cluster: str
    value: float
    is_verdict: bool


def items(result: Result) -> list[Item]:
    """Return the items of a result in the order of its file.

    ValueError for one without items, with a worth that is no finite number, or with a key twice.
    """
    evaluation = result.recipe["evaluation"]
    try:
        found = list(ITEMS.get(evaluation, _others)(result))
    except LACKING as error:
        raise ValueError(f"{result.path}: a prediction lacks {error}") from error
    if not found:
        raise ValueError(f"{result.path} holds no predictions that can be compared")
    keys = [(item.part, item.key) for item in found]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{result.path}: {' '.join(twice)} is there twice")
    return found


def has_items(result: Result) -> bool:
    """Tell whether each prediction is worth something by itself, as `items` wants it."""
    known = result.recipe["evaluation"] in ITEMS
    return known or all("value" in p or "right" in p for p in result.predictions)


def is_macro(result: Result) -> bool:
    """Tell whether a part's overall score is the mean of its kinds, not of its items."""
    return bool(result.recipe["evaluation"] != "vqa")


def asked(result: Result) -> dict[str, str]:
    """Return the hashes of what was asked, by name, and what is known of it beside.

    ValueError where the predictions are not all that the recipe's hashes name.
    """
    recipe = result.recipe
    named = {name: str(recipe[name]) for name in HASHES if recipe.get(name) is not None}
    try:
        counted = _counted(result)
    except LACKING as error:
        raise ValueError(f"{result.path}: a prediction lacks {error}") from error
    for name, hash in counted.items():
        if named.setdefault(name, hash) != hash:
            raise ValueError(
                f"{result.path} holds {len(result.predictions)} predictions whose {name} are "
                f"{hash[:12]}, and its recipe names {named[name][:12]}: it is half-finished or was "
                "altered; run the same evaluation again, which goes on from what is there"
            )
    return {name: hash for name, hash in named.items() if hash != NOTHING}


def _counted(result: Result) -> dict[str, str]:
    """Return the hashes of what the predictions themselves say was asked."""
    evaluation, predictions = result.recipe["evaluation"], result.predictions
    if evaluation in ("scenes", "things"):
        return _of_scenes(evaluation, predictions)
    if evaluation == "geneval":
        firsts = [p for p in predictions if _text(p, "id", result).endswith("/0000")]
        return {"prompts": digest(_geneval_prompt(p) for p in firsts)}
    if evaluation == "vqa":
        return {"questions": digest_of([p for p in predictions if p.get("pass") == SEEN])}
    if evaluation == "tokenizer":
        return {"images": str(result.recipe["images"])} if "images" in result.recipe else {
            "scenes": digest(p.get("expected") for p in predictions)
        }  # fmt: skip
    own = ("kind", "prompt", "expected")
    return {"items": digest([p.get(name) for name in own] for p in predictions)}


def _of_scenes(evaluation: str, predictions: Sequence[Prediction]) -> dict[str, str]:
    order = (*PARTS, CHAINS)
    known = [p for p in predictions if p.get("part") in order]
    # Requests of a part keep their order; in files of predictions the parts stand otherwise.
    sorted_ = sorted(known, key=lambda p: order.index(p["part"]))
    world = [_scene_prompt(p) for p in sorted_ if p["part"] in WORLD_PARTS]
    others = [_scene_prompt(p) for p in sorted_ if p["part"] not in WORLD_PARTS]
    if evaluation == "things":
        return {"prompts": digest(world)}
    return {"prompts": digest(world), "people_prompts": digest(others)}


def _scene_prompt(p: Prediction) -> list[Any]:
    # A prediction's kind is a name, a request's words; a conversation is asked by its first words.
    first = p["steps"][0]["prompt"] if p["part"] == CHAINS else p.get("prompt")
    return [p["part"], str(p.get("kind")).replace("_", " "), first, p.get("expected")]


def _geneval_prompt(p: Prediction) -> dict[str, Any]:
    return {"tag": p.get("kind"), **(p.get("expected") or {}), "prompt": p.get("prompt")}


def _scenes(result: Result) -> Iterable[Item]:
    """Yield the items of scenes and things; drawings of the same words are a cluster."""
    numbers: dict[str, int] = {}
    for p in result.predictions:
        part = _text(p, "part", result)
        number = numbers[part] = numbers.get(part, -1) + 1
        if part == BLIND:
            continue
        key = p.get("id", f"{part}/{number:06d}")
        unseen = p.get("unseen", "nothing")
        if result.recipe["evaluation"] == "things" and unseen != "nothing":
            part = f"{part}, unseen {unseen}"
        kind = _text(p, "kind", result)
        cluster = f"{kind}: {p['prompt']}" if part.startswith("drawing") else key
        yield Item(part, kind, key, cluster, *_worth(p, result, key))


def _geneval(result: Result) -> Iterable[Item]:
    (name,) = [name for name in result.scores if name.startswith("geneval_by_")][:1] or ["geneval"]
    for p in result.predictions:
        id = _text(p, "id", result)
        kind, prompt = _text(p, "kind", result), id.partition("/")[0]
        yield Item(name, kind, id, prompt, *_worth(p, result, id))


def _vqa(result: Result) -> Iterable[Item]:
    task = _text(result.recipe, "task", result)
    seen = [p for p in result.predictions if p.get("pass") == SEEN]
    for p in task_of(task).whole(seen) if task in NAMES else seen:  # a task may be one's own
        id = _text(p, "item", result)
        kind, group = _text(p, "kind", result), _text(p, "group", result)
        yield Item(task, kind or ALL, id, group, *_worth(p, result, id))


def _tokenizer(result: Result) -> Iterable[Item]:
    for measure in MEASURED:
        for p in result.predictions:
            if p.get(measure) is not None:  # an image may be too small for SSIM
                key = str(p.get("name", p.get("index")))
                worth = _worth({"value": p[measure]}, result, key)
                yield Item(measure, ALL, key, key, *worth)


def _judged(result: Result) -> Iterable[Item]:
    """Yield each prompt as an item of each score that is the mean of all prompts."""
    name = name_of(result.recipe)
    benchmark = benchmark_of(_text(result.recipe, "task", result))
    for score, prompts in benchmark.prompt_values(result.predictions).items():
        for item, value in prompts.items():
            worth = _worth({"value": value}, result, item)
            yield Item(f"{name}_{score}", ALL, item, item, *worth)


def _others(result: Result) -> Iterable[Item]:
    """Yield the items of an evaluator of one's own."""
    for number, p in enumerate(result.predictions):
        key = str(p.get("id", number))
        part = str(p.get("part", result.recipe["evaluation"]))
        kind, cluster = str(p.get("kind", ALL)), str(p.get("group", key))
        yield Item(part, kind, key, cluster, *_worth(p, result, key))


ITEMS: dict[str, Callable[[Result], Iterable[Item]]] = {
    "scenes": _scenes, "things": _scenes, "geneval": _geneval, "vqa": _vqa, "tokenizer": _tokenizer,
    "judged": _judged,
}  # fmt: skip


def _worth(p: Prediction, result: Result, key: str) -> tuple[float, bool]:
    """Return what an answer is worth, and whether that is a verdict."""
    value = p["value"] if "value" in p else p.get("right")
    if isinstance(value, bool):
        return float(value), True
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{result.path}: {key} is worth {value!r}, which is no score")
    return float(value), value in (0, 1)


def _text(p: dict[str, Any], name: str, result: Result) -> str:
    if not isinstance(p.get(name), str):
        raise ValueError(f"{result.path}: a prediction's {name} is {p.get(name)!r}, and no name")
    return str(p[name])

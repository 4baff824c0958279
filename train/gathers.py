"""What ZeRO-3 gathers in a pass, foretold from the order in which modules use their parameters.

DeepSpeed gathers a parameter before a module uses it and lets it go after, unless it is used again
within `distance` elements of other parameters; one of at most `threshold` elements stays. The head
is used by the whole model: it is gathered at the beginning of either half.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

EMBEDDING, HEAD, LAST = "model.embed_tokens", "lm_head", "model.norm"
# A layer's modules in the order of their use; a model need not have all of them.
ORDER = (
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.q_norm",
    "self_attn.k_proj",
    "self_attn.k_norm",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
Module = dict[str, int]
"""Numbers of elements of the parameters that are gathered together, by name."""


@dataclass(frozen=True)
class Gathers:
    """Of one forward and backward pass."""

    times: dict[str, int]
    """How often each parameter is gathered; 0: it stays."""
    most_live: int
    """Elements that are there at once, those that stay among them."""


def modules(sizes: dict[str, int], num_layers: int, whole_layers: bool) -> list[Module]:
    """Embedding, layers and last norm in their order; `whole_layers`: each layer is gathered at
    once, as with torch.compile.
    """
    by_name: dict[str, Module] = {}
    for name, size in sizes.items():
        by_name.setdefault(name.rpartition(".")[0], {})[name] = size
    found = [by_name[EMBEDDING]]
    for number in range(num_layers):
        names = [f"model.layers.{number}.{name}" for name in ORDER]
        parts = [by_name[name] for name in names if name in by_name]
        whole = {name: size for part in parts for name, size in part.items()}
        found += [whole] if whole_layers else parts
    return [*found, by_name[LAST]]


def gathers(
    order: Sequence[Module], head: Module, recompute: bool, distance: int, threshold: int
) -> Gathers:
    """order: `modules`; head: the head's own parameter, which is the embedding's when tied."""
    uses = [head, *order, head, *_backward(order, recompute)]
    turn = 1 + len(order)
    held: dict[str, int] = {}
    times: Counter[str] = Counter({name: 0 for use in uses for name in use})
    kept = {name: size for use in uses for name, size in use.items() if size <= threshold}
    most = 0
    for at, use in enumerate(uses):
        for name, size in use.items():
            if name not in held and name not in kept:
                times[name] += 1
                held[name] = size
        most = max(most, sum(held.values()))
        if at in (0, turn):
            continue  # the head is held by the whole model
        ending = dict(use) if not head.keys() & use.keys() else {}
        if at == turn - 1:
            ending |= head
        for name in ending:
            if name in held and not _is_near(uses, at + 1, name, distance):
                del held[name]
    return Gathers(dict(times), most + sum(kept.values()))


def _backward(order: Sequence[Module], recompute: bool) -> list[Module]:
    """The modules of a backward pass. A layer that is computed again stops before its last module,
    whose output nothing needs.
    """
    if not recompute:
        return list(reversed(order))
    embedding, *inner, last = order
    num_parts = _parts_of_a_layer(inner)
    found = [last]
    for start in range(len(inner) - num_parts, -1, -num_parts):
        layer = inner[start : start + num_parts]
        found += [*layer[:-1], *reversed(layer)]
    return [*found, embedding]


def _parts_of_a_layer(inner: Sequence[Module]) -> int:
    layers = {name.split(".")[2] for use in inner for name in use}
    return len(inner) // len(layers)


def _is_near(uses: Sequence[Module], start: int, name: str, distance: int) -> bool:
    """Whether a parameter is used again before `distance` elements are passed."""
    passed = 0
    for use in uses[start:]:
        if passed >= distance:
            return False
        if name in use:
            return True
        passed += sum(use.values())
    return False

"""What ZeRO-3 gathers in a pass, predicted by DeepSpeed's own rules.

1. A module gathers its parameters before it works, and lets them go after it.
2. At each module, one without parameters too, those are gathered that are needed next: `prefetch`
   elements of them.
3. A parameter stays that is used again within `distance` elements of others, or that was looked at
   for step 2 in the meantime; one of at most `threshold` elements stays for ever.
4. The head is used by the whole model: it is gathered at the beginning of either half.

All are settings of a DeepSpeed file: stage3_prefetch_bucket_size, stage3_max_reuse_distance and
stage3_param_persistence_threshold.
"""

from collections import deque
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

EMBEDDING, LAST = "model.embed_tokens", "model.norm"
QKV = ("self_attn.q_proj", "self_attn.q_norm", "self_attn.k_proj", "self_attn.k_norm",
       "self_attn.v_proj")  # fmt: skip
IN, OUT, POST, DOWN = (
    "input_layernorm", "self_attn.o_proj", "post_attention_layernorm", "mlp.down_proj",
)  # fmt: skip
# A layer's modules in the order of their use, its parts that have parameters of their own and those
# that have none.
FORWARD = ("", IN, "self_attn", *QKV, OUT, POST, "mlp", "mlp.gate_proj", "mlp.up_proj", DOWN)
BACKWARD = ("", "mlp", DOWN, "mlp.up_proj", "mlp.gate_proj", POST, "self_attn", OUT,
            *reversed(QKV), IN)  # fmt: skip


@dataclass(frozen=True)
class Gathers:
    """Of one forward and backward pass."""

    times: dict[str, int]
    """How often each parameter is gathered; 0: it stays."""
    max_live: int
    """Elements that are there at once, those that stay among them."""


@dataclass(frozen=True)
class Rules:
    """DeepSpeed's settings, in elements."""

    threshold: int
    distance: int
    prefetch: int


@dataclass(frozen=True)
class _Use:
    """A module at work: numbers of elements of what it needs, and what can go after it."""

    needs: dict[str, int] = field(default_factory=dict)
    done: frozenset[str] = frozenset()


def gathers(
    sizes: dict[str, int], num_layers: int, recompute: bool, whole_layers: bool, rules: Rules
) -> Gathers:
    """sizes: elements of a Transformer's parameters by name; whole_layers: each layer is gathered
    at once, as with torch.compile.
    """
    run = _Pass(_uses(sizes, num_layers, recompute, whole_layers), rules)
    for at, use in enumerate(run.uses):
        run.fetch(at)
        run.release(at, use.done)
    return Gathers(run.times, run.max_live + run.stays)


def _uses(
    sizes: dict[str, int], num_layers: int, recompute: bool, whole_layers: bool
) -> list[_Use]:
    by_name: dict[str, dict[str, int]] = {}
    for name, size in sizes.items():
        by_name.setdefault(_module(name), {})[name] = size
    head = by_name.get("lm_head", by_name[EMBEDDING])

    def use(name: str, is_done: bool = True) -> _Use:
        needs = by_name.get(name.rstrip("."), {})
        return _Use(needs, frozenset(needs) - frozenset(head) if is_done else frozenset())

    forward, backward = [use(EMBEDDING), use("")], [use(""), use(LAST)]
    for number in range(num_layers):
        prefix = f"model.layers.{number}."
        if whole_layers:
            inside = {k: size for k, size in sizes.items() if k.startswith(prefix)}
            by_name[prefix.rstrip(".")] = inside
        names = [prefix + name for name in (("",) if whole_layers else FORWARD)]
        forward += [use(name) for name in names]
    for number in reversed(range(num_layers)):
        prefix = f"model.layers.{number}."
        ahead = [prefix + name for name in (("",) if whole_layers else FORWARD)]
        back = [prefix + name for name in (("",) if whole_layers else BACKWARD)]
        if recompute:  # from the last module on, whose input is needed first
            start = back.index(ahead[-1])
            backward += [use(name, is_done=False) for name in back[: start + 1]]
            backward += [use(name) for name in ahead]
            back = back[start + 1 :]
        backward += [use(name) for name in back]
    ends = _Use(by_name[LAST], frozenset(by_name[LAST]) | frozenset(head))
    return [_Use(head), *forward, ends, _Use(head), *backward, use(EMBEDDING)]


def _module(parameter: str) -> str:
    """The module that a parameter belongs to; adapters belong to what they are beside."""
    stem = parameter.partition(".base_layer.")[0].partition(".lora_")[0]
    return stem.rpartition(".")[0] if stem == parameter else stem


class _Pass:
    """The parameters that are there while modules are used one after the other."""

    def __init__(self, uses: Sequence[_Use], rules: Rules) -> None:
        self.uses, self.rules = uses, rules
        sizes = {name: size for use in uses for name, size in use.needs.items()}
        self.stays = sum(size for size in sizes.values() if size <= rules.threshold)
        self.times = dict.fromkeys(sizes, 0)
        self.live: dict[str, int] = {}
        self.max_live = 0
        self.queue = deque((name, size, at) for at, use in enumerate(uses)
                           for name, size in use.needs.items())  # fmt: skip
        self.looked_at = dict.fromkeys(sizes, -1)  # the use for which each was looked at last

    def fetch(self, at: int) -> None:
        """Gather what use number `at` needs, and some of what comes after it."""
        needs = self.uses[at].needs
        for name, size in needs.items():
            self._gather(name, size)
        for _ in [name for name in needs if self.looked_at[name] < at]:
            name, _, use = self.queue.popleft()
            self.looked_at[name] = use
        ahead = 0
        while self.queue and ahead < self.rules.prefetch:
            name, size, use = self.queue.popleft()
            ahead += self._gather(name, size)
            self.looked_at[name] = max(self.looked_at[name], use)
        self.max_live = max(self.max_live, sum(self.live.values()))

    def release(self, at: int, names: Set[str]) -> None:
        """Let go what use number `at` was the last to need, but for what stays."""
        for name in names & self.live.keys():
            if self.looked_at[name] <= at + 1 and not self._is_near(at + 1, name):
                del self.live[name]

    def _gather(self, name: str, size: int) -> int:
        """How many elements had to be gathered."""
        if name in self.live or size <= self.rules.threshold:
            return 0
        self.times[name] += 1
        self.live[name] = size
        return size

    def _is_near(self, start: int, name: str) -> bool:
        """Whether a parameter is used again before `distance` elements are passed."""
        passed = 0
        for use in self.uses[start:]:
            if passed >= self.rules.distance:
                return False
            if name in use.needs:
                return True
            passed += sum(use.needs.values())
        return False

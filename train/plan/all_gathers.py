"""Predict the all-gather schedule of ZeRO-3, recorded from the model, by DeepSpeed's rules.

1. A module gathers its parameters before it works, and lets them go after it.
2. Before each module, one without parameters too, those are gathered that are needed next:
   `stage3_prefetch_bucket_size` elements of them, and no more than are left of
   `stage3_max_live_parameters`. That limit stops no module from gathering what it needs, and
   lets nothing go: live parameters may exceed it.
3. A parameter stays that is needed again within `stage3_max_reuse_distance` elements of others, or
   that was looked at for rule 2; one of at most `stage3_param_persistence_threshold` stays.
4. What rule 3 keeps is decided once, in the first pass after the order of modules is known, and
   never again. With several micro-batches a step that is the second one of the first step, before
   which nothing was kept: what always stays later is gathered there, and fills the room of rule 2.
5. A frozen parameter that a module gathers to compute its activations again belongs to the module
   whose backward pass asked for them: it stays until that ends, and goes then in any case.

The rules are those of DeepSpeed 0.19's partitioned_param_coordinator.py.
"""

import math
import warnings
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Container
from functools import cache
from itertools import accumulate
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unimodal.mlp import Experts
from unimodal.unified import UnifiedModel

from ..zero_settings import ZeroSettings


class Call(NamedTuple):
    """Note the begin or the end of a module's work, and the names of the parameters it needs."""

    module: nn.Module | None  # None: the loss around the model, which needs the head's weight
    names: tuple[str, ...]
    begins: bool
    inside: frozenset[str]
    """Names of the parameters of the module and of all within it."""
    is_leaf: bool = False
    """Whether DeepSpeed gathers all that is inside at once: z3_leaf_module."""
    phase: Literal["forward", "again", "backward"] = "forward"
    """Again: a forward pass within the backward pass, whose activations were not kept."""


class Token(NamedTuple):
    """What an embedder is given of one token."""

    ids: Tensor
    address: Tensor
    spans: tuple[tuple[()], ...]


@cache
def record(model: UnifiedModel, whole_layers: bool) -> list[Call]:
    """Return the calls of a forward and a backward pass over one token, in order.

    The model lies on the meta device. With `whole_layers` a layer gathers all of its parameters at
    once, as with torch.compile. So do the image head and the experts of a layer, whose inside is
    not run.
    """
    calls: list[Call] = []
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    experts = [part for part in model.modules() if isinstance(part, Experts)]
    leaves = {*(model.model.layers if whole_layers else ()), *experts}
    whole = leaves | {model.head}
    hooks = []

    is_backward = False

    def note(call: Call) -> Callable[..., None]:
        return lambda *_: calls.append(call)

    def note_forward(call: Call) -> Callable[..., None]:
        return lambda *_: calls.append(call._replace(phase="again") if is_backward else call)

    def watch(module: nn.Module) -> None:
        needs = tuple(names[id(one)] for one in module.parameters(recurse=module in whole))
        inside = frozenset(names[id(one)] for one in module.parameters())
        call = Call(module, needs, True, inside, module in leaves)
        back = call._replace(phase="backward")
        hooks.append(module.register_forward_pre_hook(note_forward(call)))
        hooks.append(module.register_forward_hook(note_forward(call._replace(begins=False))))
        hooks.append(module.register_full_backward_pre_hook(note(back)))
        hooks.append(module.register_full_backward_hook(note(back._replace(begins=False))))
        for child in () if module in whole else module.children():
            watch(child)

    watch(model)
    loss = Call(None, (names[id(model.lm_head_weight)],), True, frozenset(names.values()))
    token_BT = torch.zeros(1, 1, dtype=torch.int64, device="meta")
    calls.append(loss)
    for one in experts:
        setattr(one, "forward", lambda x_BTD: 1 * x_BTD)  # noqa: B010
    token = Token(token_BT, token_BT.expand(2, 1, 1).movedim(0, -1), ((),))
    hidden_BTD = model.hidden_states(token, token_BT, _attend)
    if model.head.has_own_loss:  # when it is called counts, not what it computes
        setattr(model.head, "forward", lambda hidden: hidden)  # noqa: B010
        hidden_BTD = model.head(hidden_BTD)
        del model.head.forward
    calls += [loss._replace(begins=False), loss._replace(phase="backward")]
    is_backward = True
    with warnings.catch_warnings():  # ids have no gradient, which ends the embedding's call at once
        warnings.simplefilter("ignore", UserWarning)
        hidden_BTD.sum().backward()
    for one in experts:
        del one.forward
    for hook in hooks:
        hook.remove()
    return calls


def _attend(layer: int, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q_BHTd, k_BGTd, v_BGTd, enable_gqa=True)


class Reach:
    """Know how far ahead of each module a parameter is needed, in elements of others."""

    def __init__(self, needs: list[Collection[str]], sizes: dict[str, int]) -> None:
        """Take the names that each module needs, in order."""
        self.passed = [0, *accumulate(sum(sizes[name] for name in names) for names in needs)]
        self.uses: dict[str, list[int]] = defaultdict(list)
        for use, names in enumerate(needs):
            for name in names:
                self.uses[name].append(use)

    def __call__(self, name: str, start: int) -> float:
        """Return the elements between module `start` and the next one that needs it, or infinity
        where none does.
        """
        uses = self.uses[name]
        later = bisect_left(uses, start)
        return self.passed[uses[later]] - self.passed[start] if later < len(uses) else math.inf


class AllGathers:
    """Count what a pass gathers: `times` by parameter's name, `launches` of the collective, and
    `max_live`, the most elements that are there at once.
    """

    def __init__(
        self,
        calls: list[Call],
        sizes: dict[str, int],
        settings: ZeroSettings,
        accumulation: int,
        trained: Container[str],
    ) -> None:
        """Play the calls through; `sizes` are the elements of the parameters by name, and a step
        has `accumulation` passes.
        """
        self.trained = trained
        self.calls, self.sizes, self.settings = calls, sizes, settings
        self.stay = self._stays()
        begins = [call for call in calls if call.begins]
        self.needs = [call.names for call in begins]
        # A leaf looks inside of every later module, another one inside of none.
        self.reach = {
            True: Reach([call.inside for call in begins], sizes),
            False: Reach([() if call.is_leaf else call.names for call in begins], sizes),
        }
        self.released: dict[tuple[nn.Module | None, int], list[str]] = {}
        self._play(frozenset() if accumulation > 1 else self.stay)
        self._play(self.stay)

    def _stays(self) -> frozenset[str]:
        total, found = 0, set()
        for name, size in self.sizes.items():
            is_small = size <= self.settings.stage3_param_persistence_threshold
            if is_small and total + size <= self.settings.stage3_model_persistence_threshold:
                found.add(name)
                total += size
        return frozenset(found)

    def _play(self, live: frozenset[str]) -> None:
        """Go through a pass, at whose begin those names are live."""
        self.live = set(live)
        self.at_begin = sum(self.sizes[name] for name in live)
        self.gathered = 0  # elements that are live, without those that were so at the begin
        self.queue = deque((use, name) for use, names in enumerate(self.needs) for name in names)
        self.users: dict[str, set[nn.Module | None]] = defaultdict(set)
        self.looked_at: dict[str, int] = defaultdict(int)
        self.backward: dict[nn.Module | None, None] = {}  # in the order in which they began
        self.owned: dict[nn.Module | None, set[str]] = defaultdict(set)
        self.begun = self.max_live = self.launches = 0
        self.times: Counter[str] = Counter()
        for call in self.calls:
            self._begin(call) if call.begins else self._end(call)

    def _begin(self, call: Call) -> None:
        needed = [self._gather(name) for name in call.names]
        for name in call.names:
            self.users[name].add(call.module)
        self._attribute(call)
        while self.queue and self.queue[0][0] <= self.begun:
            self.queue.popleft()
        room = self.settings.stage3_max_live_parameters - self.gathered
        ahead, most = 0, min(room, self.settings.stage3_prefetch_bucket_size)
        while self.queue and ahead < most:
            use, name = self.queue.popleft()
            ahead += self._gather(name)
            self.looked_at[name] = use
        self.launches += any(needed) + (ahead > 0)  # each is one flat tensor
        self.begun += 1
        self.max_live = max(self.max_live, self.at_begin + self.gathered)

    def _attribute(self, call: Call) -> None:
        if call.phase == "backward":
            self.backward[call.module] = None
        elif call.phase == "again":
            owner = next(reversed(self.backward))
            for name in call.names:
                if name not in self.trained:
                    self.users[name].add(owner)
                    self.owned[owner].add(name)

    def _gather(self, name: str) -> int:
        """Return how many elements had to be gathered."""
        if name in self.live:
            return 0
        self.live.add(name)
        self.times[name] += 1
        self.gathered += self.sizes[name]
        return self.sizes[name]

    def _end(self, call: Call) -> None:
        key = call.module, self.begun
        if key not in self.released:
            self.released[key] = [name for name in call.names if self._is_let_go(name, call)]
        owned: set[str] = set()
        if call.phase == "backward":
            self.backward.pop(call.module, None)
            owned = self.owned.pop(call.module, owned)
        for name in (*call.names, *owned):
            self.users[name].discard(call.module)
        for name in (*self.released[key], *(owned - self.stay)):
            if name in self.live and not self.users[name]:
                self.live.discard(name)
                self.gathered -= self.sizes[name]

    def _is_let_go(self, name: str, call: Call) -> bool:
        if name in self.stay or self.looked_at[name] > self.begun:
            return False
        distance = self.reach[call.is_leaf](name, self.begun)
        return distance >= self.settings.stage3_max_reuse_distance

"""Predict the all-gather schedule of ZeRO-3, recorded from the model, by DeepSpeed's rules.

1. A module gathers its parameters before it works, and lets them go after it. 2. Before each
module, one without parameters too, those are gathered that are needed next:
`stage3_prefetch_bucket_size` elements of them. 3. A parameter stays that is needed again within
`stage3_max_reuse_distance` elements of others, or    that was looked at for rule 2; one of at most
`stage3_param_persistence_threshold` stays.

The rules are those of DeepSpeed's partitioned_param_coordinator.py.
"""

import warnings
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from functools import cache
from itertools import accumulate
from typing import NamedTuple

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
    whole = {*(model.model.layers if whole_layers else ()), model.head, *experts}
    hooks = []

    def note(call: Call) -> Callable[..., None]:
        return lambda *_: calls.append(call)

    def watch(module: nn.Module) -> None:
        needs = tuple(names[id(one)] for one in module.parameters(recurse=module in whole))
        begin, end = note(Call(module, needs, True)), note(Call(module, needs, False))
        hooks.append(module.register_forward_pre_hook(begin))
        hooks.append(module.register_forward_hook(end))
        hooks.append(module.register_full_backward_pre_hook(begin))
        hooks.append(module.register_full_backward_hook(end))
        for child in () if module in whole else module.children():
            watch(child)

    watch(model)
    head = (names[id(model.lm_head_weight)],)
    token_BT = torch.zeros(1, 1, dtype=torch.int64, device="meta")
    calls.append(Call(None, head, begins=True))
    for one in experts:
        setattr(one, "forward", lambda x_BTD: 1 * x_BTD)  # noqa: B010
    token = Token(token_BT, token_BT.expand(2, 1, 1).movedim(0, -1), ((),))
    hidden_BTD = model.hidden_states(token, token_BT, _attend)
    if model.head.has_own_loss:  # when it is called counts, not what it computes
        setattr(model.head, "forward", lambda hidden: hidden)  # noqa: B010
        hidden_BTD = model.head(hidden_BTD)
        del model.head.forward
    calls += [Call(None, head, begins=False), Call(None, head, begins=True)]
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


class AllGathers:
    """Count what a pass gathers: `times` by parameter's name, and `max_live`, the most elements
    that are there at once.
    """

    def __init__(self, calls: list[Call], sizes: dict[str, int], settings: ZeroSettings) -> None:
        """Play the calls through; `sizes` are the elements of the parameters by name."""
        self.sizes, self.settings = sizes, settings
        needs = [call.names for call in calls if call.begins]
        self.passed = [0, *accumulate(sum(sizes[name] for name in names) for names in needs)]
        self.queue = deque((use, name) for use, names in enumerate(needs) for name in names)
        self.uses: dict[str, list[int]] = defaultdict(list)
        for use, name in self.queue:
            self.uses[name].append(use)
        threshold = settings.stage3_param_persistence_threshold
        self.live = {name for name, size in sizes.items() if size <= threshold}
        self.stay = frozenset(self.live)
        self.users: dict[str, set[nn.Module | None]] = defaultdict(set)
        self.looked_at: dict[str, int] = defaultdict(int)
        self.begun = self.max_live = 0
        self.times: Counter[str] = Counter()
        for call in calls:
            self._begin(call) if call.begins else self._end(call)

    def _begin(self, call: Call) -> None:
        for name in call.names:
            self._gather(name)
            self.users[name].add(call.module)
        while self.queue and self.queue[0][0] <= self.begun:
            self.queue.popleft()
        ahead = 0
        while self.queue and ahead < self.settings.stage3_prefetch_bucket_size:
            use, name = self.queue.popleft()
            ahead += self._gather(name)
            self.looked_at[name] = use
        self.begun += 1
        self.max_live = max(self.max_live, sum(self.sizes[name] for name in self.live))

    def _gather(self, name: str) -> int:
        """Return how many elements had to be gathered."""
        if name in self.live:
            return 0
        self.live.add(name)
        self.times[name] += 1
        return self.sizes[name]

    def _end(self, call: Call) -> None:
        for name in call.names:
            self.users[name].discard(call.module)
            is_kept = name in self.stay or self.users[name] or self.looked_at[name] > self.begun
            if not is_kept and not self._is_near(name):
                self.live.discard(name)

    def _is_near(self, name: str) -> bool:
        uses, now = self.uses[name], self.passed[self.begun]
        later = bisect_left(uses, self.begun)
        distance = self.settings.stage3_max_reuse_distance
        return later < len(uses) and self.passed[uses[later]] - now < distance

"""Share long rows among ranks: each takes a part of their tokens, and in attention some heads.

Ulysses (Jacobs et al., "DeepSpeed Ulysses", arXiv:2309.14509, section 3): neighbouring ranks form
a group that takes the same rows. A rank embeds its part of them, and has its loss. Around
attention the ranks of a group exchange queries, keys and values, so that each sees whole rows with
its share of the heads, and exchange the outputs back. So packed documents, bidirectional images and
private copies are masked as ever, wherever they are cut. The loss of a rank is the sum over the
targets of its part, and the gradients of all ranks add up to that of the batch: no engine needs to
know.

DeepSpeed's own layer does the same in four exchanges a layer, for its engine alone; here they are
two, for any.

Letters: B rows, T tokens of a row, t of a part, P parts and ranks of a group, H query heads, G
key-value heads, h and g of a rank, d head width, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from unimodal.attention import Attend
from unimodal.sequence import Batch
from unimodal.unified import UnifiedModel

from .ranks import Ranks


@dataclass(frozen=True, eq=False)
class SequenceGroup:
    """A SequenceGroup holds the ranks that share the same rows, of which this one is a member."""

    size: int
    """P, how many ranks."""
    place: int
    """The part of each row that this rank takes, 0 .. P - 1."""
    process_group: Any

    @classmethod
    def of(cls, ranks: Ranks, timeout_s: float) -> "SequenceGroup | None":
        """Return the group of this rank; None where each rank has rows of its own. All ranks call
        it together.
        """
        size = ranks.sequence_parallel
        if size == 1:
            return None
        mine = None
        for first in range(0, ranks.world_size, size):  # every rank takes part in making each
            members = list(range(first, first + size))
            made = dist.new_group(members, timeout=timedelta(seconds=timeout_s))
            mine = made if ranks.rank in members else mine
        return cls(size, ranks.rank % size, mine)

    def bounds(self, sequence_length: int) -> tuple[int, int]:
        """Return where this rank's part of rows of so many tokens begins and stops."""
        assert sequence_length % self.size == 0, "or else it was refused"
        length = sequence_length // self.size
        return self.place * length, (self.place + 1) * length

    def hidden_states(
        self, model: UnifiedModel, batch: Batch, attend: Attend
    ) -> tuple[Tensor, Batch]:
        """Return the hidden vectors (B, t, D) of this rank's part of the rows, and that part.

        An image that lies in two parts is embedded for both, by all of its content.
        """
        start, stop = self.bounds(batch.ids.shape[1])
        part, (around, before) = batch.part(start, stop), batch.around(start, stop)
        x_BtD = model.input_vectors(around)[:, before : before + stop - start]
        attend, ids_Bt = SharedHeads(attend, self), model.value_ids(part)
        return model(x_BtD, part.positions, attend, ids_BT=ids_Bt), part

    def summed(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums over the group of scalars, without gradients."""
        flat = torch.stack([value.detach().double() for value in values.values()])
        dist.all_reduce(flat, group=self.process_group)
        return dict(zip(values, flat.unbind(), strict=True))


class SharedHeads:
    """SharedHeads compute attention in whole rows, of which each rank of a group has a part."""

    def __init__(self, attend: Attend, group: SequenceGroup) -> None:
        """`attend`: the attention function of the whole rows."""
        self.attend, self.group = attend, group

    @torch.compiler.disable
    def __call__(self, layer: int, q_BHtd: Tensor, k_BGtd: Tensor, v_BGtd: Tensor) -> Tensor:
        """Return the attention output of this rank's part, (B, H, t, d)."""
        P, H = self.group.size, q_BHtd.shape[1]
        # Where there are fewer key-value heads than ranks, those of neighbours are the same.
        repeats = max(1, P // k_BGtd.shape[1])
        k_BGtd, v_BGtd = (x.repeat_interleave(repeats, dim=1) for x in (k_BGtd, v_BGtd))
        h, g = H // P, k_BGtd.shape[1] // P
        sent = [x.unflatten(1, (P, -1)) for x in (q_BHtd, k_BGtd, v_BGtd)]
        parts_PBNtd = self._exchanged(torch.cat(sent, dim=2).transpose(0, 1))
        rows_BNTd = parts_PBNtd.permute(1, 2, 0, 3, 4).flatten(2, 3)
        out_BhTd = self.attend(layer, *rows_BNTd.split([h, g, g], dim=1))
        out_PBhtd = out_BhTd.unflatten(2, (P, -1)).permute(2, 0, 1, 3, 4)
        return self._exchanged(out_PBhtd).transpose(0, 1).flatten(1, 2)

    def _exchanged(self, x_P: Tensor) -> Tensor:
        """Return what the ranks of the group have for this one, in their order."""
        received: Tensor = _Exchange.apply(x_P.contiguous(), self.group.process_group)
        return received


class _Exchange(torch.autograd.Function):
    """Send x[p] to rank p, for all ranks p: its own inverse, and so its own derivative."""

    @staticmethod
    def forward(ctx: Any, x_P: Tensor, process_group: Any) -> Tensor:
        """Return what was received, in the order of ranks."""
        ctx.process_group = process_group
        received_P = torch.empty_like(x_P)
        dist.all_to_all_single(received_P, x_P, group=process_group)
        return received_P

    @staticmethod
    def backward(ctx: Any, d_P: Tensor) -> Any:
        """Return the gradients to the ranks that sent."""
        return _Exchange.apply(d_P.contiguous(), ctx.process_group), None


def problem(size: int, heads: int, kv_heads: int, sequence_length: int) -> str | None:
    """Return why `size` ranks cannot share rows of so many tokens, and which numbers can, for a
    model of so many query and key-value heads; None where they can.
    """

    def fits(one: int) -> bool:
        shares_kv = kv_heads % one == 0 or one % kv_heads == 0
        return heads % one == 0 and shares_kv and sequence_length % one == 0

    if fits(size):
        return None
    fitting = [str(one) for one in range(2, heads + 1) if fits(one)]
    return (
        f"engine.sequence_parallel {size}: it must divide the model's {heads} query heads and "
        f"loader.sequence_length {sequence_length}, and divide its {kv_heads} key-value heads or "
        f"be a multiple of them; {', '.join(fitting) or 'no number'} would fit"
    )

"""Keep the experts of a layer equally busy: a loss, and what part of the work each has.

Letters: N tokens of all rows, S documents, E experts, K chosen ones.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from unimodal.mlp import Routing
from unimodal.sequence import PADDING

WEIGHT = 0.001  # router_aux_loss_coef of Qwen3-MoE


def balance(routings: Iterable[Routing], doc_BT: Tensor) -> dict[str, Tensor]:
    """Return scalars that add up over micro-batches and ranks: `sum_balance`, the balance losses of
    the documents, each times its tokens, as a mean over layers; `weight_balance`, the tokens; and
    `choices_e` for each expert, how often a token of a document chose it in any layer.

    doc_BT: each token's document in its row, or PADDING. Without routings there is nothing.

    A document's loss is that of DeepSeek-V3 (arXiv:2412.19437, eq. 17 to 20), 1 where all experts
    have equal shares. It is a sum over documents, so that it is the same for any ranks, micro-
    batches and packing, which the loss of a whole batch is not (Switch Transformer,
    arXiv:2101.03961, eq. 4).
    """
    routings = list(routings)
    if not routings:
        return {}
    rows_BT = torch.arange(len(doc_BT), device=doc_BT.device)[:, None] * doc_BT.shape[1] + doc_BT
    at_N = (doc_BT != PADDING).flatten().nonzero()[:, 0]
    document_N = rows_BT.flatten()[at_N].unique(return_inverse=True)[1]
    lengths_S = document_N.bincount()
    sums, choices = [], []
    for routing in routings:
        shares_NE, chosen_NK = routing.shares_NE[at_N], routing.chosen_NK[at_N]
        zeros_SE = shares_NE.new_zeros(len(lengths_S), shares_NE.shape[1])
        chosen_NE = torch.zeros_like(shares_NE).scatter(1, chosen_NK, 1.0)
        counts_SE = zeros_SE.index_add(0, document_N, chosen_NE)
        shares_SE = zeros_SE.index_add(0, document_N, shares_NE)
        # f_e = E / (K T) sum_t 1(t chose e), P_e = 1 / T sum_t p_te, L = sum_e f_e P_e: T L here.
        scale = shares_NE.shape[1] / chosen_NK.shape[1]
        losses_S = scale * (counts_SE * shares_SE).sum(1) / lengths_S
        sums.append(losses_S.sum())
        choices.append(counts_SE.sum(0))
    of_all_E = torch.stack(choices).sum(0)
    return {
        "sum_balance": torch.stack(sums).mean(),
        "weight_balance": lengths_S.sum(),
        **{f"choices_{number}": one for number, one in enumerate(of_all_E)},
    }


def loads(choices: dict[str, float]) -> dict[str, float]:
    """Return what is logged of `choices_e`: the share of each expert in the work over the mean
    share, and the largest; nothing where there are none.
    """
    total = sum(choices.values())
    if not total:
        return {}
    found = {
        f"expert_load/{name.removeprefix('choices_')}": len(choices) * value / total
        for name, value in choices.items()
    }
    return {"expert_load_max": max(found.values()), **found}

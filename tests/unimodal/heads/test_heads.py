"""Heads by their names, and next_code where codes are not a run of ids; factorised codes."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal.architecture import Architecture
from unimodal.attention import DenseAttention
from unimodal.embedder import FactorisedCodes
from unimodal.heads import head_class
from unimodal.heads.head import ImageHead
from unimodal.heads.next_code import NextCode, pick_codes
from unimodal.sampling import guide, pick
from unimodal.sequence import IMAGE, TEXT, Batch, Row, Sequence, span_mask
from unimodal.train.objectives import LossConfig, language
from unimodal.transformer import TransformerConfig
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary

# Text 0 to 19, among it special tokens and two runs of codes, the second of which comes first.
SCATTERED = Vocabulary(20, {"pad": 3, "image": 9}, ((12, 4), (5, 3)))
CODE_IDS = [12, 13, 14, 15, 5, 6, 7]
D = 8

THEIRS = """
from unimodal.heads.next_code import NextCode

class Theirs(NextCode):
    pass

Number = 3
"""


def shape_of(vocabulary: Vocabulary) -> Architecture:
    config = TransformerConfig(
        num_ids=vocabulary.size, width=D, num_layers=1, num_heads=1, num_kv_heads=1, head_width=D,
        mlp_width=8,
    )  # fmt: skip
    return Architecture(config, vocabulary)


# --- names --------------------------------------------------------------------------------------


def test_a_head_of_ours_is_found_by_the_name_of_its_file() -> None:
    assert head_class("next_code") is NextCode


@pytest.mark.parametrize(
    "name",
    [
        "nothing",
        "head",
        "",
        "../next_code",
        "heads.next_code",
        "next-code",
        "os",
        "sys",
        ":Head",
        "a b:Head",
        "..next_code:NextCode",
        ".heads:Head",
    ],
)
def test_what_is_no_head_of_ours_is_refused(name: str) -> None:
    for trusted in (False, True):
        with pytest.raises(ValueError, match=f"image head '{name}'"):
            head_class(name, trusted)


@pytest.fixture
def theirs(tmp_path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of somebody else's module, which nobody has imported."""
    name = f"their_heads_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def test_a_foreign_head_is_imported_where_the_user_named_it(theirs: str) -> None:
    found = head_class(f"{theirs}:Theirs", trusted=True)
    assert issubclass(found, ImageHead) and found.__module__ == theirs


def test_a_foreign_head_from_a_file_is_refused_unless_it_was_imported(theirs: str) -> None:
    for name in (
        f"{theirs}:Theirs",
        f"{theirs}.deeper:Theirs",
        "antigravity:Head",
        "a:b:c",
    ):
        module = name.partition(":")[0]
        with pytest.raises(ValueError, match=f"import {module} first, if you trust it"):
            head_class(name)
        assert module not in sys.modules, "a file imports nothing"
    user = head_class(f"{theirs}:Theirs", trusted=True)
    assert head_class(f"{theirs}:Theirs") is user


@pytest.mark.parametrize("name", ["Number", "Nothing", "Theirs.Deeper", "NextCode()", ""])
def test_what_is_no_head_of_theirs_is_refused(theirs: str, name: str) -> None:
    with pytest.raises(ValueError, match="image head"):
        head_class(f"{theirs}:{name}", trusted=True)


@pytest.mark.parametrize("name", ["os:system", "builtins:eval", "torch:nn", "subprocess:Popen"])
def test_what_was_imported_and_is_no_head_is_refused(name: str) -> None:
    """Modules that are there lend nothing but image heads."""
    with pytest.raises(ValueError, match=f"image head '{name}': a name in unimodal/heads"):
        head_class(name)


@pytest.mark.parametrize("name", ["no.such.module:Head", "unimodal.heads.none:Head"])
def test_a_module_that_is_not_there_is_said(name: str) -> None:
    with pytest.raises(ValueError, match=f"image head '{name}': there is none of that name"):
        head_class(name, trusted=True)


# --- next_code over scattered codes -------------------------------------------------------------


def batch(labels: list[int], weights: list[float], modality: list[int]) -> Batch:
    ids = np.zeros(len(labels), np.int64)
    sequence = Sequence.causal(
        ids, np.array(labels), np.array(weights, np.float32), np.array(modality, np.int8)
    )
    return Batch.stack([Row.pack([sequence], len(labels), pad=3)])


@pytest.mark.parametrize("sliced", [True, False])
@pytest.mark.parametrize("z", [0.0, 0.1])
def test_targets_are_scored_over_what_may_stand_there(sliced: bool, z: float) -> None:
    """Codes over the codes, text over text and special tokens; `sliced` off: both over all ids."""
    model = UnifiedModel(shape_of(SCATTERED)).double()
    with torch.no_grad():
        table = torch.randn(20, D, generator=torch.Generator().manual_seed(0))
        model.model.embed_tokens.weight.copy_(2 * table)
    labels = [12, 1, 5, 15, 9, 7, 3, 19]
    weights = [1.0, 2.0, 0.5, 3.0, 1.0, 0.25, 0.5, 0.0]
    modality = [IMAGE, TEXT, IMAGE, IMAGE, TEXT, IMAGE, TEXT, 0]
    rows = batch(labels, weights, modality)
    config = LossConfig(text=1.5, image=0.7, z=z, sliced=sliced)
    found = language(model, rows, config)
    attend = DenseAttention(span_mask(rows.doc, rows.block, rows.private))
    hidden = model(model.embed(rows.ids), rows.positions, attend)[0]
    logits = hidden @ model.model.embed_tokens.weight.T
    is_code = torch.zeros(20, dtype=torch.bool)
    is_code[CODE_IDS] = True
    total = hidden.new_zeros(())
    for kind, name, scale, allowed in (
        (TEXT, "text", 1.5, ~is_code),
        (IMAGE, "image", 0.7, is_code),
    ):
        at = [k for k, one in enumerate(modality) if one == kind]
        scored = logits[at].masked_fill(~allowed, -torch.inf) if sliced else logits[at]
        log_z = scored.logsumexp(-1)
        losses = log_z - scored[range(len(at)), [labels[k] for k in at]]
        weighed = torch.tensor([weights[k] for k in at], dtype=torch.float64)
        torch.testing.assert_close(
            found.sums[f"sum_{name}"], (losses * weighed).sum().detach(), rtol=1e-6, atol=0
        )
        total = total + scale * (weighed * (losses + z * log_z.square())).sum() / weighed.sum()
    torch.testing.assert_close(found.total, total, rtol=1e-6, atol=0)
    mine, oracle = (
        torch.autograd.grad(one, list(model.parameters())) for one in (found.total, total)
    )
    for one, other in zip(mine, oracle, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    temperature=st.sampled_from([0.0, 0.5, 1.0, 30.0]),
    top_k=st.sampled_from([None, 1, 3, 50]),
    top_p=st.sampled_from([None, 0.3, 1.0]),
    guided=st.booleans(),
)
def test_it_draws_codes_alone(
    seed: int, temperature: float, top_k: int | None, top_p: float | None, guided: bool
) -> None:
    """As from the logits of the codes in the order of their ids; likelier ids between are none."""
    head = NextCode(shape_of(SCATTERED))
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(20, D, generator=generator)
    table[8:12] *= 9  # between the runs
    hidden = [torch.randn(5, 1, D, generator=generator) for _ in range(1 + guided)]
    noise = torch.rand(5, generator=generator, dtype=torch.float64)
    args = [([float(u)], 2.0 if guided else None) for u in noise]
    found = pick_codes(head, table, hidden, (temperature, top_k, top_p), args)
    in_order = sorted(CODE_IDS)
    logits = [F.linear(x[:, -1], table[in_order]) for x in hidden]
    logits_RC = guide(*logits, torch.full((5, 1), 2.0)) if guided else logits[0]
    expected = pick(logits_RC, noise, temperature, top_k, top_p).tolist()
    assert [CODE_IDS[code] for code in found] == [in_order[k] for k in expected]


def test_codes_in_one_run_need_no_mask() -> None:
    head = NextCode(shape_of(Vocabulary.new(20, 7)))
    assert head.allowed is None and head.num_targets == 7


# --- factorised codes ---------------------------------------------------------------------------


def factorised(levels: tuple[int, ...], vocabulary: Vocabulary) -> FactorisedCodes:
    codes = FactorisedCodes(levels, vocabulary, D)
    with torch.no_grad():
        random = torch.Generator().manual_seed(len(levels))
        codes.table.weight.copy_(torch.randn(codes.table.weight.shape, generator=random))
    return codes.eval()


def by_hand(codes: FactorisedCodes, levels: tuple[int, ...], vocabulary: Vocabulary):
    """The first level is the lowest digit of a code."""
    added = torch.zeros(vocabulary.size, D, dtype=codes.table.weight.dtype)
    for code, token in enumerate(vocabulary.code_ids.tolist()):
        first = 0
        for count in levels:
            added[token] += codes.table.weight[first + code % count]
            code, first = code // count, first + count
    return added


@torch.no_grad()
def test_codes_are_the_sum_of_their_levels() -> None:
    vocabulary = replace(SCATTERED, code_runs=((12, 4), (5, 2)))
    for levels in ((2, 3), (3, 2), (6,)):
        codes = factorised(levels, vocabulary)
        torch.testing.assert_close(codes(), by_hand(codes, levels, vocabulary))
    with pytest.raises(ValueError, match=r"levels \(2, 2\) do not make 6 codes"):
        FactorisedCodes((2, 2), vocabulary, D)


@torch.no_grad()
def test_what_was_summed_is_not_kept_for_other_weights() -> None:
    """Weights that are trained on, loaded, assigned, or turned to another dtype are summed anew."""
    torch.manual_seed(0)
    vocabulary, levels = replace(SCATTERED, code_runs=((12, 4), (5, 2))), (2, 3)
    codes = factorised(levels, vocabulary)
    assert codes() is codes(), "nothing is summed twice"

    def is_anew() -> bool:
        return torch.equal(codes(), by_hand(codes, levels, vocabulary))

    codes.table.weight.mul_(2)
    assert is_anew()
    codes.load_state_dict({"table.weight": torch.randn(5, D)})
    assert is_anew()
    codes.load_state_dict({"table.weight": torch.randn(5, D)}, assign=True)
    assert is_anew()
    codes.double()
    assert is_anew()
    codes.table.weight.data = torch.randn(5, D, dtype=torch.float64)
    assert is_anew()


def test_what_is_learned_is_never_kept() -> None:
    codes = factorised((7,), SCATTERED)
    for _ in range(2):
        codes().sum().backward()
    assert torch.equal(codes.table.weight.grad, torch.full((7, D), 2.0))

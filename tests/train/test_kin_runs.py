"""Training families that are Llama with small differences, by all weights, LoRA and ZeRO-3."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import checkpoints
import pytest
import torch
from checkpoints import logits
from pair import Pair
from test_lora import last, merged
from test_lora import run as lora_run
from tiny_runs import metrics
from train_files import history
from transformers import AutoModelForCausalLM
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

import unimodal
from unimodal.bundle import read_contents
from unimodal.hub.export import export
from unimodal.hub.grow import Growth, grow
from unimodal.mlp import Routing
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.train import lm
from unimodal.train.balance import balance, loads
from unimodal.train.flops import layer_weights
from unimodal.train.heldout import HeldOutConfig
from unimodal.train.objectives import LossConfig
from unimodal.train.plan.all_gathers import record
from unimodal.train.ranks import Ranks
from unimodal.train.schedule import ScheduleConfig
from unimodal.unified import UnifiedModel

pytestmark = pytest.mark.usefixtures("one_thread")
NUM_EXPERTS, CHOSEN = 5, 2


@pytest.fixture(scope="module")
def grown(tokenizer: Path, tmp_path_factory):
    """Give the grown bundle of a family."""
    image = ImageTokenizer.load(tokenizer)
    folder, made = tmp_path_factory.mktemp("kin"), {}

    def of(family: str) -> Path:
        if family not in made:
            # Phi-3's and Gemma's windows or contexts leave room for the recipe's sequences.
            more = {"sliding_window": 256} if family == "gemma3_text" else {}
            checkpoints.save(folder / family / "old", family, **more)
            growth = Growth(grid=Grid(3, 2))
            made[family] = grow(folder / family / "old", image, folder / family / "new", growth)
        return made[family]

    return of


def routing(num: int, seed: int = 0) -> Routing:
    scores = torch.randn(num, NUM_EXPERTS, generator=torch.Generator().manual_seed(seed))
    shares = scores.softmax(-1).requires_grad_()
    return Routing(shares, shares.topk(CHOSEN, dim=-1).indices)


def test_the_balance_loss_of_one_document_is_that_of_transformers():
    one = routing(30)
    found = balance([one], torch.zeros(1, 30, dtype=torch.int32))
    theirs = load_balancing_loss_func((one.shares_NE.log(),), NUM_EXPERTS, CHOSEN)
    ours = found["sum_balance"] / found["weight_balance"]
    torch.testing.assert_close(ours * CHOSEN, theirs)  # theirs is K where loads are equal
    even = torch.full((NUM_EXPERTS, NUM_EXPERTS), 1 / NUM_EXPERTS)
    turns = torch.arange(NUM_EXPERTS)[:, None] + torch.arange(CHOSEN)
    equal = balance([Routing(even, turns % NUM_EXPERTS)], torch.zeros(1, NUM_EXPERTS))
    assert equal["sum_balance"] == pytest.approx(NUM_EXPERTS)  # 1 a token


def test_the_balance_loss_is_the_same_for_any_packing():
    one, other = routing(24, 1), routing(24, 2)
    alone = [balance([one, other], torch.zeros(2, 12, dtype=torch.int32))]
    # The same documents, with padding between and behind, in one row.
    gaps = torch.tensor([0] * 12 + [-1] * 3 + [1] * 12 + [-1] * 2)[None]

    def spread(of: Routing) -> Routing:
        shares = torch.full((29, NUM_EXPERTS), 1 / NUM_EXPERTS)
        chosen = torch.zeros(29, CHOSEN, dtype=torch.int64)
        for now, then in ((slice(0, 12), slice(0, 12)), (slice(15, 27), slice(12, 24))):
            shares[now], chosen[now] = of.shares_NE[then].detach(), of.chosen_NK[then]
        return Routing(shares, chosen)

    packed = balance([spread(one), spread(other)], gaps)
    for name, value in alone[0].items():
        torch.testing.assert_close(packed[name], value.detach(), check_dtype=False)
    first = [Routing(r.shares_NE[:12], r.chosen_NK[:12]) for r in (one, other)]
    second = [Routing(r.shares_NE[12:], r.chosen_NK[12:]) for r in (one, other)]
    parts = [balance(part, torch.zeros(1, 12, dtype=torch.int32)) for part in (first, second)]
    summed = parts[0]["sum_balance"] + parts[1]["sum_balance"]
    torch.testing.assert_close(summed, alone[0]["sum_balance"])
    nothing = balance([Routing(one.shares_NE, one.chosen_NK)], torch.full((2, 12), -1))
    nothing["sum_balance"].backward()
    assert nothing["sum_balance"] == 0 and not one.shares_NE.grad.any()


def test_loads_are_shares_over_the_mean_share():
    found = loads({"choices_0": 6.0, "choices_1": 0.0, "choices_2": 3.0})
    assert found == {
        "expert_load_max": 2.0, "expert_load/0": 2.0, "expert_load/1": 0.0, "expert_load/2": 1.0
    }  # fmt: skip
    assert loads({}) == {}


@pytest.mark.parametrize("family", checkpoints.KIN)
def test_a_step_lowers_the_loss(family, grown):
    from zero_cases import Case, made, whole_batch

    case = Case(weights=str(grown(family)))
    engine, batch = made(case, Ranks()), whole_batch(0, case)
    before = engine.measure(batch, None)
    engine.step(0, [batch], engine.learner.norms(batch))
    after = engine.measure(batch, None)
    assert after["loss"] < before["loss"] - 0.01
    assert ("loss_balance" in before) == (family == "qwen3_moe")


def test_two_ranks_of_zero_3_give_tokens_to_experts_as_one_process(pair: Pair, grown):
    if find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed: the extra `train`")
    from test_zero import alone, same, together
    from zero_cases import Case

    case = Case(stage=3, weights=str(grown("qwen3_moe")), accumulation=2, recompute=True)
    expected = alone(case)
    same(together(pair, case), expected)
    assert all(one["loss_balance"] > 1 for one in expected)
    shares = [expected[0][f"expert_load/{number}"] for number in range(NUM_EXPERTS)]
    assert sum(shares) == pytest.approx(NUM_EXPERTS) and max(shares) > 1.05


def test_two_ranks_of_zero_3_train_adapters_of_experts_as_one_process(pair: Pair, grown):
    if find_spec("deepspeed") is None or find_spec("peft") is None:
        pytest.skip("deepspeed or peft is not installed: the extra `train`")
    from test_zero import alone, same, together
    from zero_cases import Case, made

    case = Case(stage=3, weights=str(grown("qwen3_moe")), lora=True, recompute=True)
    trained = made(replace(case, stage=None), Ranks()).named
    adapters = [name for name in trained if ".experts." in name]
    assert len(adapters) == 2 * 3 * 2 * NUM_EXPERTS and not any("base_layer" in n for n in trained)
    expected = alone(case)
    same(together(pair, case), expected)
    assert all(one["norm"] > 0 and "expert_load/4" in one for one in expected)


def test_a_plan_gathers_the_experts_of_a_layer_together(grown):
    shape = read_contents(grown("qwen3_moe")).config.architecture
    with torch.device("meta"):
        model = UnifiedModel(shape)
    calls = record(model, whole_layers=False)
    wanted = {
        name for name, _ in model.named_parameters() if name.startswith("model.layers.1.mlp.")
    }
    assert len(wanted) == 1 + 3 * NUM_EXPERTS
    assert sum(set(call.names) == wanted and call.begins for call in calls) == 2  # and back
    assert not any(set(call.names) & wanted for call in calls if set(call.names) != wanted)
    assert "forward" not in vars(model.model.layers[1].mlp)
    active = layer_weights(shape.transformer)
    projections = 2 * 32 * (4 * 16 + 2 * 16)
    assert active == projections + CHOSEN * 3 * 32 * 24 + 32 * NUM_EXPERTS


def test_a_balance_of_no_experts_is_refused(grown, shards, tokenizer, tmp_path):
    assert LossConfig(balance=-1.0).problems() == ["balance -1.0: at least 0"]
    config = lora_run(tmp_path / "run", shards, tokenizer, grown("phi3"), 2)
    with pytest.raises(ValueError, match="loss.balance 0.1: the model has no experts"):
        lm.train(replace(config, loss=LossConfig(balance=0.1)))
    assert not (tmp_path / "run").exists()


def test_the_weight_of_the_balance_may_change(grown, shards, tokenizer, tmp_path):
    config = lora_run(tmp_path / "run", shards, tokenizer, grown("qwen3_moe"), 1)
    config = replace(config, lora=None, held_out=HeldOutConfig())
    lm.train(config)
    heavier = replace(config, schedule=ScheduleConfig(2, 1), loss=LossConfig(balance=0.5))
    with pytest.raises(ValueError, match="--accept-change"):
        lm.train(heavier)
    lm.train(heavier, accept_change=True)
    (change,) = [line for line in history(config.output) if line[1] == "loss.balance"]
    assert change == (1, "loss.balance", None, 0.5)
    before, after = metrics(config.output)
    of_balance = [one["loss"] - one["loss_text"] - one["loss_image"] for one in (before, after)]
    shares = [w * one["loss_balance"] for w, one in ((0.001, before), (0.5, after))]
    assert of_balance == pytest.approx(shares, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("family", ["phi3", "qwen3_moe"])
def test_adapters_merge_and_fit_the_export(family, grown, shards, tokenizer, tmp_path):
    peft = pytest.importorskip("peft", reason="needs the extra `train`: peft")
    from zero_cases import LORA

    config = replace(lora_run(tmp_path / "run", shards, tokenizer, grown(family), 2), lora=LORA)
    lm.train(config)
    expected = merged(tmp_path / "run", grown(family))
    bundle = unimodal.load(tmp_path / "run" / "bundle").transformer.state_dict()
    for name, tensor in expected.items():
        close = {"rtol": 2**-7, "atol": 1e-6}
        torch.testing.assert_close(bundle[name], tensor.bfloat16().float(), **close)
    before = unimodal.load(grown(family)).transformer
    name = next(name for name in expected if name.endswith("up_proj.weight"))
    assert not torch.equal(before.state_dict()[name], expected[name])
    assert ("expert_load/4" in metrics(tmp_path / "run")[-1]) == (family == "qwen3_moe")

    exported = AutoModelForCausalLM.from_pretrained(
        export(grown(family), tmp_path / "hf"), dtype=torch.float32
    )
    theirs = peft.PeftModel.from_pretrained(exported, tmp_path / "run" / "adapter").eval()
    before.load_state_dict(expected)
    ids_BT = torch.randint(0, 300, (2, 60), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert (theirs(ids_BT).logits - logits(before, ids_BT)).abs().max() <= 1e-5
    assert last(tmp_path / "run").step == 2

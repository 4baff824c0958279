"""What every image head keeps: training and chat agree, and a batch changes nothing.

What a head does by itself, and its drawings against an oracle, are in a file of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flow_cases import flow_model
from head_models import draw_by_hand, hidden_of, next_code_model, picture, request, rows_of, talk
from masked_models import masked_model
from scale_models import scale_model

from unimodal.branch import Branch
from unimodal.branches import Branches
from unimodal.document import Document, Image, Text
from unimodal.events import ReplyDone
from unimodal.generation import Generation, generate
from unimodal.heads import flow, masked, next_code, scale
from unimodal.heads.mask_schedule import MaskSchedule
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.sequence import IMAGE, TEXT, Batch, Row
from unimodal.tokenizer.grid import Grid
from unimodal.train.objectives import LossConfig, language


@dataclass(frozen=True)
class Case:
    """A head: a model, the function that its file looks at hidden vectors with, and the settings
    that it follows, as values to alternate between.
    """

    make: Callable[[], Model]
    file: ModuleType
    look: str = "pick"
    settings: dict[str, tuple[Any, ...]] = field(default_factory=dict)


GRID = Grid(3, 4)
CASES = {
    "next_code": Case(
        lambda: next_code_model(64, GRID, addresses=True), next_code,
        settings={"image_temperature": (1.0, 0.0, 1.0), "image_top_p": (None, 0.9)},
    ),
    "next_code, residual lambdas, value embeddings": Case(
        lambda: next_code_model(64, GRID, False, residual_lambdas=True, value_embeddings=True),
        next_code,
    ),
    "next_code, two-way": Case(
        lambda: next_code_model(64, GRID, addresses=True, two_way=True), next_code
    ),
    "masked": Case(
        lambda: replace(masked_model(MaskSchedule(steps=4)), grid=GRID), masked,
        settings={"image_steps": (None, 2, 9), "image_temperature": (1.0,) * 4 + (0.0,) * 4},
    ),
    "scale": Case(
        scale_model, scale,
        settings={"image_temperature": (1.0,) * 4 + (0.0,) * 4, "image_top_k": (None, 9)},
    ),
    "scale, factorised": Case(lambda: scale_model(addresses=False, factorised=True), scale),
    "flow": Case(
        flow_model, flow, "velocities",
        settings={"image_steps": (4, 2, 5), "image_solver": ("euler", "euler", "heun"),
                  "guidance_interval": (None, None, None, (0.3, 0.7))},
    ),
}  # fmt: skip
MODELS: dict[str, Model] = {}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def model(request: pytest.FixtureRequest, case: Case) -> Model:
    name = request.node.callspec.params["case"]
    if name not in MODELS:
        MODELS[name] = case.make()
    return MODELS[name]


def assert_same(found: Text | Image, expected: Text | Image) -> None:
    """Codes are equal; latents are sums, which another batch may add up in another order."""
    assert type(found) is type(expected)
    if isinstance(found, Text):
        assert found == expected
    elif found.latents is None:
        np.testing.assert_array_equal(found.codes, expected.codes)
    else:
        np.testing.assert_allclose(found.latents, expected.latents, atol=1e-4)


# --- learning -----------------------------------------------------------------------------------


def test_packed_rows_learn_what_their_documents_do_alone(case: Case, model: Model) -> None:
    """The sums of the losses, and all gradients, by documents alone under a dense mask."""
    if model.transformer.head.reads_latents:
        pytest.skip("its targets are no ids: see test_the_loss_is_its_formula of the head flow")
    documents = [talk(model), request("what is it?"), Document((picture(model, 3),))]
    sequences = [model.sequencer.sequence(one, key=(k,)) for k, one in enumerate(documents)]
    packed = Batch.stack([
        Row.pack(sequences, sum(map(len, sequences)) + 5, 0),
        Row.pack(sequences[2:], sum(map(len, sequences)) + 5, 0),
    ])  # fmt: skip
    transformer = model.transformer
    mine = language(transformer, packed, LossConfig(), {"text": 1.0, "image": 1.0}).total
    total, table = 0.0, transformer.output_table()
    first, last = model.vocabulary.code_slice
    for sequence in [*sequences, sequences[2]]:
        hidden, labels = hidden_of(model, sequence), torch.from_numpy(sequence.labels)
        weights = torch.from_numpy(sequence.weights)
        for modality, low, high in ((TEXT, 0, model.vocabulary.num_words), (IMAGE, first, last)):
            at = torch.from_numpy(np.flatnonzero(sequence.modality == modality))
            losses = F.cross_entropy(hidden[at] @ table[low:high].T, labels[at] - low,
                                     reduction="none")  # fmt: skip
            total = total + (weights[at] * losses).sum()
    torch.testing.assert_close(mine, total, rtol=1e-5, atol=1e-4)
    parameters = list(transformer.parameters())
    ours, theirs = (
        torch.autograd.grad(one, parameters, allow_unused=True) for one in (mine, total)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_a_batch_without_images_has_gradients_of_zero(model: Model) -> None:
    """Not none: ranks whose batches have images would wait for them."""
    batch = rows_of(model.sequencer.sequence(request("words alone")))
    model.transformer.zero_grad()
    language(model.transformer, batch, LossConfig()).total.backward()
    for name, parameter in model.transformer.named_parameters():
        if name.startswith(("head.", "embedder.")):
            assert parameter.grad is not None and not parameter.grad.any(), name
    model.transformer.zero_grad()


# --- drawing ------------------------------------------------------------------------------------


@torch.inference_mode()
def test_text_behind_an_image_has_the_logits_of_training(model: Model) -> None:
    """In the turn that drew it, and in a later one that reads it anew."""
    branches, branch = Branches(model), Branch(model.sequencer.prompt(request("draw")))
    layout, words = model.sequencer.layout, model.text_tokenizer.encode("here it is")
    *opening, last = layout.opening(model.grid)
    branch.add(opening)
    image = replace(draw_by_hand(model, branches, branch, last), role="assistant")
    behind = [*layout.closing, *words, *layout.stops]
    branch.add(behind)
    branches.read([branch])
    hidden = branches.last([branch], len(behind))[0]
    learned = Document((*request("draw").parts, image, Text("here it is", role="assistant")))
    sequence = model.sequencer.sequence(learned, key=(5,))
    end = len(sequence) - 1  # a whole document has its end
    assert sequence.ids[end - len(behind) : end].tolist() == behind
    forced = hidden_of(model, sequence)[end - len(behind) : end]
    torch.testing.assert_close(hidden, forced, atol=1e-4, rtol=0)

    later = Document((*learned.parts, Text("and?", role="user")))
    prompt = model.sequencer.prompt(later)
    branches, branch = Branches(model), Branch(prompt)
    branches.read([branch])
    hidden = branches.last([branch], len(prompt))[0]
    answered = Document((*later.parts, Text("yes", role="assistant")))
    sequence = model.sequencer.sequence(answered, key=(6,))
    # All but private copies stand in both, in the same order, behind an id that begins a document.
    public = hidden_of(model, sequence)[torch.from_numpy(sequence.private == 0)]
    assert sequence.ids[sequence.private == 0][: len(prompt)].tolist() == prompt.ids.tolist()
    torch.testing.assert_close(hidden, public[: len(prompt)], atol=1e-4, rtol=0)


def test_guidance_of_one_is_none_bit_for_bit(case: Case, model: Model, monkeypatch) -> None:
    """All that is looked at, and the image."""
    seen: list[torch.Tensor] = []
    original = getattr(case.file, case.look)

    def noted(*args: Any) -> Any:
        found = original(*args)
        seen.append(args[0] if case.look == "pick" else torch.from_numpy(np.stack(found)))
        return found

    monkeypatch.setattr(case.file, case.look, noted)
    found = []
    for guidance in (None, 1.0, 4.0):
        seen.clear()
        ((image,),) = generate(model, [request("draw a star")],
                               Sampling(seed=4, guidance=guidance), "image")  # fmt: skip
        content = image.codes if image.latents is None else image.latents
        found.append((content, torch.cat(seen)))
    (plain, looked), (one, looked_at_one), (four, _) = found
    assert np.array_equal(plain, one) and torch.equal(looked, looked_at_one)
    assert not np.array_equal(plain, four)


def test_a_request_beside_strangers_draws_what_it_draws_alone(case: Case, model: Model) -> None:
    """Beside other prompts, words, guidance, and settings of the head."""
    documents = [request(f"draw {'a red circle ' * k}") for k in range(8)]
    documents[5] = Document((picture(model, 8, "user", 0.0), *request("make it blue").parts))
    modalities = ["image", "text", "image", None, "image", "image", "text", "image"]
    samplings = [
        Sampling(seed=k, guidance=(None, 3.0)[k // 2 % 2], max_text_tokens=9,
                 text_temperature=k % 2, **{n: v[k % len(v)] for n, v in case.settings.items()})
        for k in range(8)
    ]  # fmt: skip
    together = generate(model, documents, samplings, modalities, batch=5)
    for document, sampling, modality, parts in zip(
        documents, samplings, modalities, together, strict=True
    ):
        (alone,) = generate(model, [document], sampling, modality)
        for found, expected in zip(parts, alone, strict=True):
            assert_same(found, expected)
    assert sum(isinstance(parts[0], Image) for parts in together) >= 5


def test_a_cancelled_drawing_leaves_the_others_as_they_are(model: Model) -> None:
    """At each of the first passes."""
    (alone,) = generate(model, [request("draw 2")], Sampling(seed=2, guidance=2.0), "image")
    for steps in range(1, 5):
        generation = Generation(model)
        numbers = [generation.submit(request(f"draw {k}"), Sampling(seed=k, guidance=2.0), "image")
                   for k in range(3)]  # fmt: skip
        events = [event for _ in range(steps) for event in generation.step()]
        before = {event.request for event in events if isinstance(event, ReplyDone)}
        generation.cancel(numbers[0])
        events += generation.run()
        done = {event.request: event.parts for event in events if isinstance(event, ReplyDone)}
        assert done.keys() == before | set(numbers[1:])
        assert_same(done[2][0], alone[0])
        assert generation.idle and not generation._branches._rows

"""Our models in lmms-eval (EvolvingLMMs-Lab/lmms-eval, 0.7.3), which alone imports this module.

    lmms-eval --model unimodal --model_args pretrained=runs/model --tasks mme
    lmms-eval --model unimodal --model_args reply=image,output=edits --force_simple \
        --tasks gedit_bench --process_with_media

In: requests of its tasks. Out: words, or where `reply=image` the JSON text that its tasks of
drawing and editing read: {"text": "", "images": ["/absolute/path.png"]}.

It finds `manifests` by the entry point of the group `lmms_eval.models`. A chat task gives messages,
whose images are PIL images; a simple one gives a text, in which '<image>' may say where the images
stand, and else they come first. Nothing is fetched: an image that is an address or a path is
refused, and so are films and sounds.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from lmms_eval.protocol import ChatMessages
from PIL import Image as PILImage

import unimodal
from unimodal.atomic import write_bytes
from unimodal.data.sizes import ImageRule, bucket, fitted, of_canvas
from unimodal.document import Document, Image, Part, Text
from unimodal.grammar import Modality
from unimodal.sampling import Sampling
from unimodal.tokenizer.pixels import open_image
from unimodal.transcript import png_bytes

from .answer import Answer
from .run import Evaluator, Turn, Turns, run
from .score import Prediction

PLACE = "<image>"
REPLIES: dict[str, Modality] = {"text": "text", "image": "image"}
MAX_TOKENS = 256  # of an answer, unless the task says another number


def manifests() -> list[ModelManifest]:
    """Return what lmms-eval registers: the model `unimodal`, for chat tasks and simple ones."""
    return [
        ModelManifest(
            model_id="unimodal",
            chat_class_path=f"{__name__}.UnimodalChat",
            simple_class_path=f"{__name__}.UnimodalSimple",
        )
    ]


@dataclass(frozen=True, eq=False)
class Asked:
    """A request of lmms-eval; its images are opened when it is asked."""

    id: str
    args: tuple[Any, ...]
    sampling: Sampling
    until: tuple[str, ...]
    """What ends an answer, and is no part of it."""


class UnimodalChat(lmms):
    """Answers tasks that give messages."""

    is_simple = False

    def __init__(
        self,
        pretrained: str | None = None,
        reply: str = "text",
        output: str | None = None,
        batch_size: int | str = 1,
        device: str | None = None,
        seed: int = 0,
        target_pixels: int | None = None,
        max_aspect_ratio: float = 4.0,
        max_batch_size: int | None = None,
    ) -> None:
        """Load the bundle `pretrained` (None: the one that ships).

        output: the folder of images that are drawn, which `reply=image` needs. max_batch_size:
        what lmms-eval passes beside batch_size; a larger batch_size is refused.
        """
        super().__init__()
        if reply not in REPLIES:
            raise ValueError(f"reply={reply}: text or image")
        if (reply == "image") != (output is not None):
            raise ValueError("reply=image and output=FOLDER need each other")
        self.batch_size, self._reply = int(batch_size), REPLIES[reply]
        if max_batch_size is not None and self.batch_size > int(max_batch_size):
            raise ValueError(f"batch_size={batch_size} exceeds max_batch_size={max_batch_size}")
        self.device = torch.device(device or "cpu")
        self._output = None if output is None else Path(output).resolve()
        self._model = unimodal.load(pretrained, str(self.device))
        patch = self._model.image_tokenizer.geometry.patch
        self._rule = of_canvas(self._model.canvas, patch, target_pixels, max_aspect_ratio)
        self._sampling = replace(self._model.sampling, seed=seed)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return an answer to each request, in order."""
        asked = [self._asked(number, request.args) for number, request in enumerate(requests)]
        evaluator = LmmsEvaluator(asked, self._parts, self._reply, self._output)
        answers = [one["answer"] for one in run(self._model, evaluator, None, self.batch_size)]
        for request, answer in zip(requests, answers, strict=True):
            context, options = request.args[0], self._options(request.args)
            self.cache_hook.add_partial("generate_until", (context, options), answer)
        return answers

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Raise NotImplementedError: these tasks ask by functions of their own, round by round."""
        raise NotImplementedError("unimodal answers one round: leave out tasks of several rounds")

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Raise NotImplementedError: answers are generated."""
        raise NotImplementedError(
            "unimodal generates answers: take the task's generate_until form, without likelihoods"
        )

    def _options(self, args: tuple[Any, ...]) -> dict[str, Any]:
        """Return how the task wants an answer to be generated."""
        return args[2]

    def _parts(self, args: tuple[Any, ...]) -> Iterator[Part]:
        """Yield texts and images of a request in the order in which they are shown."""
        _, to_messages, _, number, task, split = args
        messages = to_messages(self.task_dict[task][split][number])
        for message in ChatMessages(messages=messages).messages:
            for content in message.content:
                if content.type == "text":
                    yield Text(content.text, role=message.role)
                elif content.type == "image":
                    yield self._image(content.url, message.role)
                else:
                    raise ValueError(f"{task}, {number}: unimodal takes no {content.type}")

    def _asked(self, number: int, args: tuple[Any, ...]) -> Asked:
        *_, document, task, split = args
        options = self._options(args)
        until = options.get("until") or ()
        ends = (until,) if isinstance(until, str) else tuple(until)
        id = f"{task}/{split}/{document}/{number}"
        return Asked(id, args, _sampling(self._sampling, options), ends)

    def _image(self, image: Any, role: str) -> Image:
        """Return an image as the model sees it."""
        if not isinstance(image, PILImage.Image):
            raise ValueError(f"an image is a PIL image, not {image!r:.80}: nothing is fetched")
        return Image(pixels=_seen(image, self._rule), role=role)


class UnimodalSimple(UnimodalChat):
    """Answers tasks that give a text and images."""

    is_simple = True

    def _options(self, args: tuple[Any, ...]) -> dict[str, Any]:
        return args[1]

    def _parts(self, args: tuple[Any, ...]) -> Iterator[Part]:
        text, _, to_visual, number, task, split = args
        shown = to_visual(self.task_dict[task][split][number]) if to_visual else ()
        images = [self._image(image, "user") for image in shown or ()]
        pieces = text.split(PLACE)
        if len(pieces) == 1:
            yield from images
        elif len(pieces) != len(images) + 1:
            places = len(pieces) - 1
            raise ValueError(f"{task}, {number}: {places} of {PLACE}, and {len(images)} images")
        for at, piece in enumerate(pieces):
            if piece.strip():
                yield Text(piece, role="user")
            if at + 1 < len(pieces):
                yield images[at]


class LmmsEvaluator(Evaluator[Asked]):
    """Asks requests of lmms-eval; a prediction holds the answer in its form."""

    name = "lmms-eval"

    def __init__(
        self,
        asked: Sequence[Asked],
        parts: Callable[[tuple[Any, ...]], Iterator[Part]],
        reply: Modality,
        output: Path | None,
    ) -> None:
        self._asked, self._parts, self._reply, self._output = asked, parts, reply, output

    def requests(self) -> Sequence[Asked]:
        """Return the requests in order."""
        return self._asked

    def turns(self, request: Asked) -> Turns:
        """Ask once."""
        document = Document(tuple(self._parts(request.args)))
        yield Turn(document, request.sampling, self._reply)

    def score(self, request: Asked, answer: Answer) -> Prediction:
        """Return the words, or write the image and return where it is."""
        if self._output is None:
            return {"answer": cut(answer.text, request.until)}
        assert len(answer.images) == 1, f"{len(answer.images)} images where one is asked for"
        file = self._output / f"{request.id}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, png_bytes(PILImage.fromarray(answer.images[0])))
        return {"answer": json.dumps({"text": answer.text, "images": [str(file)]})}


def cut(text: str, until: Sequence[str]) -> str:
    """Return a text up to the first of the stop strings in it."""
    ends = [text.index(one) for one in until if one and one in text]
    return text[: min(ends)].strip() if ends else text


def _sampling(sampling: Sampling, options: dict[str, Any]) -> Sampling:
    """Return how an answer is sampled as the task wants it: greedily, unless it says otherwise."""
    temperature = float(options.get("temperature") or 0.0)
    if options.get("do_sample") is False:
        temperature = 0.0
    if int(options.get("num_beams") or 1) != 1:
        raise ValueError(f"num_beams {options['num_beams']}: unimodal has no beam search; give 1")
    most = int(options.get("max_new_tokens") or MAX_TOKENS)
    return replace(sampling, text_temperature=temperature, max_text_tokens=most)


def _seen(image: PILImage.Image, rule: ImageRule) -> np.ndarray:
    """Return an image, uint8 (H, W, 3), resized by the rule."""
    whole = open_image(image).image
    return fitted(whole, bucket(whole.size, rule))

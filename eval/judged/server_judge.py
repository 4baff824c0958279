"""A judge behind a server that speaks OpenAI's chat completions (vLLM, SGLang, OpenAI ...).

1. The image goes as a PNG inside the request. One token of words is asked for (a model that draws
   too is to draw nothing), at temperature 0, with the most probable tokens in its place, of which
   servers of OpenAI tell 20 at most.
2. A word stands for the token that is spelled exactly so; one that is not told has probability 0.
   Where none of a question's words is told and what is not told may be more than UNSEEN, the answer
   is unknown: an error, never a zero.
3. The model that the server names in its first reply is the version that numbers carry; another one
   under way is an error.

"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image as PILImage

from unimodal.transcript import png_bytes

from ..answerers.endpoint import Endpoint
from .judge import ROUNDING, Begins, Begun, Judge, Look

TOP = 20  # tokens that a server tells, by OpenAI's protocol
UNSEEN = 0.01
PROBE = Look(PILImage.new("RGB", (64, 64), "red"), "Is this red? Answer in one word.", ())


class ServerJudge(Judge):
    """A model behind a server."""

    def __init__(self, endpoint: Endpoint, model: str, top: int = TOP) -> None:
        """Ask it about a red image; ValueError where it gives no answer or no probabilities.

        top: how many tokens it is asked to tell.
        """
        self._endpoint, self._url, self._model = endpoint, endpoint.url, model
        self._top = top
        self._version: str | None = None
        reply = self._reply(PROBE)
        self._told(reply)
        self._version, self._fingerprint = self._model_of(reply), reply.get("system_fingerprint")
        self.name = f"{self._version.rstrip('/').rpartition('/')[2]}-server"

    def settings(self) -> dict[str, Any]:
        """Return the model as it was asked for and as the server names it."""
        return {
            "judge_model": self._model,
            "judge_version": self._version,
            "judge_fingerprint": self._fingerprint,
            "judge_top_tokens": self._top,
        }

    def look(self, asked: Sequence[Look]) -> list[Begins]:
        """Return how probably each of the words begins the answer, questions side by side."""
        with ThreadPoolExecutor(max(1, len(asked))) as pool:
            return list(pool.map(self._look, asked))

    def _look(self, asked: Look) -> Begins:
        reply = self._reply(asked)
        told = self._told(reply)
        if self._model_of(reply) != self._version:
            raise ValueError(
                f"{self._url} answers as {self._model_of(reply)}, and before as {self._version}: "
                "answers of two models are no score; name one version"
            )
        unseen = 1 - math.fsum(told.values())
        if not any(word in told for word in asked.words) and unseen > UNSEEN:
            raise ValueError(
                f"{self._url}: the {len(told)} tokens that it tells leave {unseen:.3f} open, and "
                f"none is {' or '.join(map(repr, asked.words[:4]))} in reply to "
                f"{asked.question!r}; "
                f"--top-tokens asks for more than {self._top}, where the server tells them"
            )
        return {word: Begun(word, told.get(word, 0.0)) for word in asked.words}

    def _told(self, reply: Mapping[str, Any]) -> dict[str, float]:
        """Return the probabilities of the first tokens that the server tells, by spelling."""
        try:
            top = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            found = [(one["token"], float(one["logprob"])) for one in top]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self._url} gives no probabilities of its answer's first token "
                f"({json.dumps(reply)[:200]}): take a server and a model with `logprobs`"
            ) from error
        wrong = [value for _, value in found if not value <= ROUNDING or math.isinf(value)]
        if wrong or not found:
            raise ValueError(f"{self._url}: {wrong or 'nothing'} is no log-probability of a token")
        told: dict[str, float] = {}
        for token, value in found:  # bytes that are no whole character are all spelled alike
            told[token] = told.get(token, 0.0) + math.exp(value)
        return told

    def _model_of(self, reply: Mapping[str, Any]) -> str:
        model = reply.get("model")
        return model if isinstance(model, str) and model else self._model

    def _reply(self, asked: Look) -> Mapping[str, Any]:
        body = {
            "model": self._model, "messages": [{"role": "user", "content": _content(asked)}],
            "max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": self._top,
            "modalities": ["text"],
        }  # fmt: skip
        return self._endpoint.post("chat/completions", body)


def _content(asked: Look) -> list[dict[str, Any]]:
    url = "data:image/png;base64," + base64.b64encode(png_bytes(asked.image)).decode()
    return [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": asked.question},
    ]

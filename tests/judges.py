"""Judges for tests: a small random LLaVA with its processor, and a server of OpenAI's shape."""

import base64
import io
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from PIL import Image

WORDS = "Yes yes No no one One two Two three Three seven Seven 1 2 3 7 A B C D"
TEMPLATE = (
    "{% for message in messages %}user:{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}{% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '\\nassistant:' }}{% endif %}"
)


def write_judge(folder: Path, bytes_alone: bool = True) -> Path:
    """Write a LLaVA of random weights and its processor; return its folder.

    bytes_alone: whether words and words behind a space are different tokens, as of Qwen; else the
    tokenizer knows no spaces, so that "yes" and " yes" are one token.
    """
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = _tokenizer(bytes_alone)
    torch.manual_seed(0)
    width = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**width, num_hidden_layers=2, image_size=16, patch_size=8)
    text = LlamaConfig(
        **width, num_hidden_layers=2, vocab_size=len(tokenizer), max_position_embeddings=512,
        initializer_range=0.5, pad_token_id=tokenizer.pad_token_id, eos_token_id=1,
    )  # fmt: skip
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=image_token)
    ).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    LlavaProcessor(
        CLIPImageProcessorPil(size=size, crop_size=size), tokenizer, patch_size=8,
        vision_feature_select_strategy="default", chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _tokenizer(bytes_alone: bool) -> Any:
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE, WordLevel
    from tokenizers.pre_tokenizers import ByteLevel, Whitespace
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "</s>", "<unk>", "<image>"]
    if bytes_alone:
        table = Tokenizer(BPE())
        table.pre_tokenizer = ByteLevel(add_prefix_space=False)
        table.decoder = decoders.ByteLevel()
        lines = [f"{word} {word}" for word in WORDS.split()] * 50
        table.train_from_iterator(
            lines,
            BpeTrainer(
                vocab_size=400, special_tokens=special, initial_alphabet=ByteLevel.alphabet(),
                show_progress=False,
            ),
        )  # fmt: skip
    else:
        words = [*special, *WORDS.split()]
        table = Tokenizer(WordLevel({one: at for at, one in enumerate(words)}, unk_token="<unk>"))
        table.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=table, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip


Reply = Callable[[str, Image.Image], Mapping[str, float]]
"""A function from a question and an image to the probabilities of first tokens."""


@contextmanager
def server(reply: Reply, change: Callable[[dict], Any] = lambda one: one) -> Iterator[str]:
    """Serve chat completions on this machine; yield the base URL. `change` spoils a response: it is
    given the whole object and returns what is sent.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/chat/completions" and asked["max_tokens"] == 1
            picture, words = asked["messages"][0]["content"]
            content = base64.b64decode(picture["image_url"]["url"].partition("base64,")[2])
            told = reply(words["text"], Image.open(io.BytesIO(content)).convert("RGB"))
            body = change(_completion(asked["model"], told))
            status = body.pop("status", 200) if isinstance(body, dict) else 200
            sent = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{made.server_address[1]}/v1"
        made.shutdown()
        thread.join()


def _completion(model: str, told: Mapping[str, float]) -> dict[str, Any]:
    ranked = sorted(told.items(), key=lambda one: -one[1])[:20]
    top = [
        {"token": token, "logprob": math.log(p), "bytes": list(token.encode())}
        for token, p in ranked
        if p > 0
    ]
    choice = {
        "index": 0,
        "finish_reason": "length",
        "message": {"role": "assistant", "content": ranked[0][0], "refusal": None},
        "logprobs": {"content": [{**top[0], "top_logprobs": top}], "refusal": None},
    }
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": f"{model}-2026-01",
        "system_fingerprint": "fp_1", "choices": [choice],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }  # fmt: skip

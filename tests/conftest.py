"""Tiny models that need no training, and a disk that is soon full, shared by all tests."""

import dataclasses
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_models import tiny

from unimodal.architecture import Architecture
from unimodal.model import Model
from unimodal.unified import UnifiedModel

# A shell starts background jobs with Ctrl-C ignored; processes that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
pytest_plugins = ["training_fixtures"]
# Nothing that a test measures is kept for the user, or found by another run.
os.environ["UNIMODAL_CACHE"] = tempfile.mkdtemp(prefix="unimodal-tests-")


@pytest.fixture(scope="session")
def tiny_model() -> Model:
    """Random weights: it babbles, sometimes draws, and everything it does depends on everything."""
    return tiny(width=32, num_layers=2, num_heads=4, num_kv_heads=2, head_width=8, mlp_width=64)


@pytest.fixture(scope="session")
def drawing_model() -> Model:
    """Answers anything with 'ok' and one image of random codes.

    Embeddings are one-hot and no layer writes, so the head is a table of which id follows which.
    """
    base = tiny(width=2, num_layers=1, num_heads=1, num_kv_heads=1, head_width=2, mlp_width=2)
    vocabulary, num_ids = base.vocabulary, base.vocabulary.size
    config = dataclasses.replace(base.transformer.config, width=num_ids, tied_head=False)
    transformer = UnifiedModel(Architecture(config, vocabulary)).eval()
    first, second = base.text_tokenizer.encode("o")[0], base.text_tokenizer.encode("k")[0]
    follows = {
        vocabulary.special("assistant"): first,
        first: second,
        second: vocabulary.special("image"),
        vocabulary.special("image_end"): vocabulary.special("turn_end"),
    }
    with torch.no_grad():
        transformer.model.embed_tokens.weight.copy_(torch.eye(num_ids))
        for layer in transformer.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        transformer.lm_head.weight.zero_()
        for before, after in follows.items():
            transformer.lm_head.weight[after, before] = 2.0
    return dataclasses.replace(base, transformer=transformer)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield path
    subprocess.run(["umount", str(path)], check=True)

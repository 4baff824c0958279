"""The text tokenizer of a run from scratch, learned from the texts of its own sources."""

import sys
from collections.abc import Mapping
from pathlib import Path

from unimodal.atomic import replacing
from unimodal.text import TextTokenizer

from .sources import SourceConfig
from .streams import Found, texts

TEXT_SAMPLES = 20_000  # documents whose texts teach the text tokenizer
TEXT_IDS = 1024


def learn_text(
    path: Path, sources: Mapping[str, SourceConfig], num_ids: int, shards: Found
) -> None:
    """Train a text tokenizer on the first documents of each source, unless the file is there.

    It is the same one wherever it is learned from the same shards.
    """
    if path.exists():
        return
    trained = TextTokenizer.train(texts(sources, TEXT_SAMPLES, shards), num_ids)
    if trained.num_ids < num_ids:
        note = f"text_ids {num_ids:,}: the texts give no more than {trained.num_ids:,}"
        print(note, file=sys.stderr)
    with replacing(path) as fresh:  # a cut one would stop every later start
        trained.save(fresh)

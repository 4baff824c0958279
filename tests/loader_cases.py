"""Shards of drawings and questions, a loader of them, and what its batches hold."""

from itertools import islice

import numpy as np
import pytest
import torch
from benchmarks.faults import HASH, Means

from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.shards import ShardWriter
from unimodal.data.sources import SourceConfig
from unimodal.document import Document, Image, Text
from unimodal.heads.next_code import NextCodeInputs
from unimodal.sequence import PADDING, Batch
from unimodal.sequencer import Sequencer
from unimodal.text import TextTokenizer
from unimodal.vocabulary import Vocabulary

NUM_SAMPLES = 60
CONFIG = LoaderConfig(sequence_length=128, batch_rows=4, window_rows=8, seed=3, caption_dropout=0.5)


def sample(index):
    """A drawing or a question, whose text spells the index."""
    pixels = np.full((16, 16, 3), index, dtype=np.uint8)
    if index % 2:
        return Document((Text(f"draw #{index};", "user", 0), Image(pixels, role="assistant")))
    words = "word " * (index % 13)
    asked = (Image(pixels, role="user", weight=0), Text("which?", "user", 0))
    return Document((*asked, Text(f"#{index};{words}", "assistant")))


def write(directory, documents, **settings):
    with ShardWriter(directory, **settings) as writer:
        for index, document in enumerate(documents):
            writer.write(str(index), document)
    return {"all": SourceConfig(str(directory))}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    documents = [sample(index) for index in range(NUM_SAMPLES)]
    return write(tmp_path_factory.mktemp("shards"), documents, max_samples=17)


@pytest.fixture(scope="module")
def sequencer():
    text = TextTokenizer.train(["draw which"], 256)
    return Sequencer(Vocabulary.new(text.num_ids, 256), text, HASH, NextCodeInputs())


def made(sources, sequencer, config=CONFIG, **more):
    return Loader(sources, sequencer, Means(), config, **more)


def equal(first, second):
    same = (torch.equal(getattr(first, name), getattr(second, name)) for name in Batch.tensors())
    return all(same) and repr(first.spans) == repr(second.spans)


def batches(loader, count):
    return list(islice(loader, count))


def documents(batch):
    """The ids of each document in a batch."""
    for ids_T, doc_T in zip(batch.ids, batch.doc, strict=True):
        for doc in doc_T.unique():
            if doc != PADDING:
                yield tuple(ids_T[doc_T == doc].tolist())

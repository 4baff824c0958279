"""Layouts of published models: whatever is drawn by the grammar is read back, and no text spells a
mark.
"""

import numpy as np
import published_models as made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_families import MAKERS, SPELLINGS
from spelled import parts_of

from unimodal.document import Document, Image, Text
from unimodal.families.spellings import code_runs
from unimodal.grammar import Choice, Grammar, ReplyState
from unimodal.model import Model
from unimodal.tokenizer.grid import Grid
from unimodal.vocabulary import MAX_SIDE


def grids(name: str, model: Model) -> st.SearchStrategy[Grid]:
    """The grids that a family's layout can say."""
    if name == "lumina":
        steps = st.integers(1, MAX_SIDE)
        return st.builds(lambda high, wide: Grid(2 * high, 2 * wide), steps, steps)
    sides = st.integers(1, 130)
    return st.builds(Grid, sides, sides) if name in ("emu3", "chat") else st.just(model.grid)


@pytest.mark.parametrize("name", MAKERS)
@given(data=st.data())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_a_random_walk_of_the_grammar_ends(
    models: dict[str, Model], name: str, data: st.DataObject
):
    """Within its room, and what it drew can be read from its ids."""
    model = models[name]
    layout, vocabulary = model.drawer.sequencer.layout, model.vocabulary
    small = grids(name, model).filter(lambda grid: grid.size <= 150)
    sizes = data.draw(st.lists(small, min_size=1, max_size=3, unique=True))
    grammar = Grammar(layout, sizes, model.text_tokenizer.spelled)
    constraint, room = data.draw(st.sampled_from(model.replies)), data.draw(st.integers(2, 400))
    room = max(room, grammar.longest_image + 1) if constraint == "image" else room
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    state, drawn = ReplyState(grammar, room, 8, 2, constraint), []
    while not state.over:
        following = state.next
        if isinstance(following, Choice):
            assert following.last <= vocabulary.size
            allowed = np.flatnonzero(following.allowed) + following.first
            assert not vocabulary.is_code(allowed).any()
            begins = np.intersect1d(allowed, grammar.begins)
            wanted = begins if len(begins) and rng.random() < 0.5 else allowed
            state.take(int(rng.choice(wanted)))
        elif isinstance(following, Grid):
            codes_n = rng.integers(0, vocabulary.num_codes, following.size)
            content, is_code = layout.content(codes_n, following)
            assert np.array_equal(vocabulary.id_to_code(content[is_code]), codes_n)
            state.take_image(content.tolist())
            drawn.append((following, codes_n.tolist()))
        else:
            state.take(following)
    assert len(state.ids) <= room
    assert len(drawn) == 1 if constraint == "image" else len(drawn) <= (constraint is None) * 2
    ids = state.ids[:-1] if state.ids[-1] in layout.stops else state.ids
    read = parts_of(layout, ids, "assistant", model.image_tokenizer.hash, [model.grid])
    images = [part for part in read if isinstance(part, Image)]
    assert [(image.grid, image.codes[:, 0].tolist()) for image in images] == drawn


@pytest.mark.parametrize("name", MAKERS)
def test_no_text_spells_a_code_or_a_mark(models: dict[str, Model], name: str):
    model = models[name]
    spellings = SPELLINGS[name]
    text = " ".join(spellings) + "".join(spellings)
    ids = np.array(model.text_tokenizer.encode(text))
    assert model.vocabulary.is_text(ids).all() and model.text_tokenizer.decode(ids) == text
    prompt = model.sequencer.prompt(Document((Text(text, role="user"),)))
    is_mark = ~model.vocabulary.is_text(prompt.ids)
    plain = model.sequencer.prompt(Document((Text("x", role="user"),)))
    assert is_mark.sum() == (~model.vocabulary.is_text(plain.ids)).sum() > 0


@pytest.mark.parametrize("name", MAKERS)
@given(data=st.data())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_reading_undoes_writing(models: dict[str, Model], name: str, data: st.DataObject):
    """Of an image of any shape between words, which may be those that spell marks and codes."""
    model = models[name]
    layout, encode = model.sequencer.layout, model.text_tokenizer.encode
    said = st.lists(st.sampled_from([*SPELLINGS[name], "a", " dog", "7*8", "\n"]), max_size=6)
    before, after = "".join(data.draw(said)), "".join(data.draw(said))
    grid = data.draw(grids(name, model))
    codes_n = np.random.default_rng(grid.size).integers(0, made.NUM_CODES, grid.size)
    codec_hash = model.image_tokenizer.hash
    image = Image(codes=codes_n[:, None], grid=grid, codec_hash=codec_hash, role="user")
    written = model.sequencer.image(image).ids.tolist()
    assert len(written) == layout.length(grid)
    ids = [*encode(before), *written, *encode(after)]
    read = parts_of(layout, ids, "user", codec_hash, [model.grid])
    assert [part.text for part in read if isinstance(part, Text)] == [
        *filter(None, (before, after))
    ]
    (found,) = [part for part in read if isinstance(part, Image)]
    assert found.grid == grid and np.array_equal(found.codes[:, 0], codes_n)


def test_code_runs_of_any_order():
    ids = [7, 8, 9, 3, 20, 21, 5]
    assert code_runs(ids) == ((7, 3), (3, 1), (20, 2), (5, 1))

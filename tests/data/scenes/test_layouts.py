"""Requests with boxes: what is drawn stands in its box, and shards keep the boxes."""

from unimodal.data.scenes.conversations import Mix, conversation
from unimodal.data.scenes.layouts import LAYOUTS, bare_words, placed
from unimodal.data.scenes.reading import Unreadable, read_scene
from unimodal.data.scenes.world import generator, has_held_out_pair, scene
from unimodal.data.shards import Shard, ShardWriter
from unimodal.data.sizes import may_mirror
from unimodal.document import Box, Document, Image, Text

ONLY = Mix(**dict.fromkeys(("draw", "ask", "describe", "edit", "story", "greet"), 0.0), layout=1.0,
           follow=0.5)  # fmt: skip


def exchanges(document: Document) -> list[tuple[list[Text], Image | None]]:
    """Return the user's texts of each turn with the image that answers it."""
    found = []
    turns = document.turns()
    for (_, asked), (_, reply) in zip(turns[::2], turns[1::2], strict=True):
        drawn = [part for part in reply if isinstance(part, Image)]
        found.append(([p for p in asked if isinstance(p, Text)], drawn[0] if drawn else None))
    return found


def test_each_box_has_an_object_with_its_centre() -> None:
    num_boxes = num_later = num_bare = 0
    for index in range(150):
        talk = exchanges(conversation(7, index, mix=ONLY))
        for turn, (texts, drawn) in enumerate(talk):
            boxes = [one.box for one in texts if one.box is not None]
            assert [one.box for one in texts] == [None, *boxes], "boxes stand behind the words"
            num_later += bool(turn and boxes)
            if not boxes:
                continue
            read = read_scene(drawn.pixels)
            assert not isinstance(read, Unreadable) and not has_held_out_pair(read.objects)
            for box in boxes:
                x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
                off = min(max(abs(one.x - x), abs(one.y - y)) for one in read.objects)
                assert off < 1 / 64
                num_boxes += 1
            is_bare = texts[0].text.lower().rstrip(".! ") in LAYOUTS
            num_bare += is_bare
            if is_bare:
                assert len(boxes) == len(read.objects), "what no word says, a box says"
    assert num_boxes > 250 and num_later > 20 and num_bare > 30


def test_the_words_of_a_box_are_those_of_its_object() -> None:
    rng = generator(1, 2)
    for index in range(60):
        for obj in scene(3, index).objects:
            exact, loose = (placed(obj, rng, loose) for loose in (False, True))
            assert exact.claim.fits(obj) and obj.shape == exact.claim.shape
            assert abs(exact.box.right - exact.box.left - obj.width) < 1e-9
            ratio = (loose.box.right - loose.box.left) / obj.width
            assert 0.79 < ratio < 1.26


def test_held_out_phrasings_are_for_evaluation() -> None:
    rng = generator(1, 3)
    both = [{bare_words(rng, held_out).lower().rstrip(".! ") for _ in range(300)}
            for held_out in (False, True)]  # fmt: skip
    for found, of in zip(both, (1, 0), strict=True):
        expected = {words for at, words in enumerate(LAYOUTS) if bool(at % 5) == bool(of)}
        assert expected <= found, "some are dressed in further words"
        assert not found & (set(LAYOUTS) - expected)


def test_a_shard_keeps_the_boxes(tmp_path) -> None:
    documents = [conversation(9, index, mix=ONLY) for index in range(10)]
    with ShardWriter(tmp_path) as writer:
        for number, document in enumerate(documents):
            writer.write(str(number), document)
    (file,) = tmp_path.glob("*.tar")
    shard = Shard(file)
    for number, document in enumerate(documents):
        kept = shard.document(number)
        assert [part for part in kept.parts if isinstance(part, Text)] == [
            part for part in document.parts if isinstance(part, Text)
        ]
    assert any(part.box for part in kept.parts if isinstance(part, Text))


def test_an_image_with_boxes_is_not_mirrored() -> None:
    words = Text("draw this", "user")
    assert may_mirror(Document((words,)))
    assert not may_mirror(Document((words, Text("a star", "user", box=Box(0, 0, 1, 0.5)))))

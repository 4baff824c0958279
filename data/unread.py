"""What stands at the end of a document and is read by nothing that is predicted before it.

Image heads that learn an image from a copy of its own (masked, flow, scale) lay the clean image out
behind that, for what follows. Where the document ends with the image, that is the end of the turn
alone: half of the tokens of a caption and its image teach when to stop, which is soon known. The
loader leaves them out of a share of such documents (`loader.unread_share`). What is left has the
logits that it has with them.
"""

from dataclasses import replace

from unimodal.document import Document, Image
from unimodal.sequence import Sequence
from unimodal.sequencer import Sequencer


def unread_length(sequencer: Sequencer, document: Document) -> int:
    """Return how many tokens at the end of a document's sequence only what follows would read: the
    clean copy of a learned image that it ends with, and what closes image, turn and document.

    0 where it ends otherwise, and for heads that learn an image as it stands. Of images only the
    grid is used.
    """
    own, last = sequencer.of(document), document.parts[-1]
    if not isinstance(last, Image) or last.weight == 0 or own.is_soft(last):
        return 0
    assert last.grid is not None, "an image that is measured has a grid"
    if not own.inputs.extra_length(last.grid, learned=True):
        return 0
    around = own.layout.layout.turns.get(last.role) if last.role is not None else None
    closing = len(own.layout.ids(around.after)) if around is not None else 0
    clean = own.layout.length(last.grid) - len(own.layout.opening(last.grid))
    return clean + closing + len(own.layout.ids(own.layout.layout.end))


def begun(sequence: Sequence, length: int) -> Sequence:
    """Return the first `length` tokens of a sequence, with the images that lie among them whole."""
    arrays = {name: getattr(sequence, name)[:length] for name in Sequence.ARRAYS}
    return replace(sequence, **arrays, spans=tuple(s for s in sequence.spans if s.stop <= length))

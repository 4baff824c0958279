"""A branch is a token sequence that the transformer reads for a request: what it has yet to read,
and what its row of the key-value cache holds.

A request has one branch for itself and, while it draws with guidance, more of them: its prompt with
the user's texts, images or both dropped (sequencer.DROPS).
"""

from collections.abc import Hashable, Iterable

from .heads.head import ImageTokens, Read
from .sequence import Sequence as Prompt
from .tokens import COLUMNS, Tokens


class Branch:
    """A Branch is one token sequence of a request: what it has yet to read, and its cache row."""

    def __init__(
        self,
        prompt: Prompt,
        reply: Iterable[list[int] | ImageTokens] = (),
        owner: int | None = None,
    ) -> None:
        """Queue the prompt, and the tokens of the reply so far. owner: the request's number."""
        self.row: int | None = None
        self.owner = owner
        self.held = Tokens()  # what its row of the cache holds
        # The RoPE position of the next token, and the largest block and private numbers in use.
        self._position = self._blocks = self._privates = 0
        self._clear()
        self._add_tokens(prompt, int(prompt.positions.max(initial=-1)) + 1)
        for tokens in reply:
            self.add(tokens)

    def _clear(self) -> None:
        self.queue = Tokens()
        self.num_temporary = 0  # how many of the last tokens are rolled back after the forward
        self.num_forgotten = 0  # how many tokens leave the cache before the forward

    def add(self, tokens: list[int] | ImageTokens) -> None:
        """Queue causal ids, or the tokens of an image."""
        if isinstance(tokens, ImageTokens):
            self._add_tokens(tokens.numbered(self._blocks, self._privates), tokens.num_positions)
        else:
            self._add_ids(tokens, None)

    def add_read(self, read: Read) -> None:
        """Queue what an image head asks to be read."""
        assert not self.num_temporary, "what is not kept must be seen before more is read"
        self.forget(read.forget)
        start = len(self.queue)
        self._add_ids(read.ids, read.address)
        if read.offsets is not None:
            first = self.queue.positions[start]
            self.queue.positions[start:] = [first + offset for offset in read.offsets]
        if read.bidirectional:
            self._blocks += 1
            self.queue.block[start:] = [self._blocks] * len(read.ids)
        if read.span is not None:
            self.queue.spans.append(read.span.moved(start))
        if not read.keep:
            self.num_temporary = len(read.ids)
            # Tokens that are rolled back take no positions: the next ones stand in their place.
            self._position -= self.num_temporary

    def forget(self, num: int) -> None:
        """Let the last `num` tokens leave the cache before more are read."""
        assert not num or not self.queue.ids, "what has not been read cannot be forgotten"
        self.num_forgotten += num
        self._position -= num

    def _add_ids(self, ids: list[int], address: list[tuple[int, int]] | None) -> None:
        n, queue = len(ids), self.queue
        queue.ids += ids
        queue.positions += range(self._position, self._position + n)
        queue.block += [0] * n
        queue.private += [0] * n
        queue.address += address or [(0, 0)] * n
        self._position += n

    def _add_tokens(self, tokens: Prompt | ImageTokens, num_positions: int) -> None:
        queue = self.queue
        queue.spans += [span.moved(len(queue)) for span in tokens.spans]
        queue.ids += tokens.ids.tolist()
        queue.positions += (tokens.positions + self._position).tolist()
        queue.block += tokens.block.tolist()
        queue.private += tokens.private.tolist()
        queue.address += map(tuple, tokens.address.tolist())
        self._position += num_positions
        self._blocks = max(self._blocks, int(tokens.block.max(initial=0)))
        self._privates = max(self._privates, int(tokens.private.max(initial=0)))

    @property
    def tokens(self) -> Tokens:
        """Return a copy of all tokens, those that the cache holds and those that are queued."""
        tokens = Tokens()
        tokens.append(self.held, len(self.held))
        tokens.append(self.queue, len(self.queue))
        return tokens

    def begins_with(self, num: int) -> None:
        """Take the first `num` queued tokens as read: the cache holds them."""
        assert self.row is None, "a branch begins once"
        self.held.append(self.queue, num)
        self.queue.remove_first(num)

    def has_read(self, row: int) -> None:
        """Empty the queue: all of it was read, in this row of the cache."""
        if self.num_forgotten:
            self.held.remove_last(self.num_forgotten)
        self.held.append(self.queue, len(self.queue) - self.num_temporary)
        self._clear()
        self.row = row

    @property
    def unread(self) -> Hashable | None:
        """Return a key of all that is queued, to find branches with equal queues.

        None where an image is given by more than its ids, which is not compared.
        """
        if any(span.has_content for span in self.queue.spans):
            return None
        return tuple(tuple(getattr(self.queue, name)) for name in COLUMNS), self.num_temporary

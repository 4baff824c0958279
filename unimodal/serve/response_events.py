"""The events of a response that streams, each with its number."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from ..events import ReplyDone, TextDelta
from .job import Drawn, Partial
from .responses import Answer, status_of, text_part
from .sse import event


async def events(answer: Answer) -> AsyncIterator[str]:
    """Yield the server-sent events of a response."""
    written = _Written(answer)
    for one in written.begin():
        yield one
    async for told in answer.job.events():
        if isinstance(told, TextDelta):
            found = written.text(told.text)
        elif isinstance(told, Partial | Drawn):
            found = written.image(told)
        else:
            assert isinstance(told, ReplyDone), "nobody asked how likely words are"
            found = written.end(told)
        for one in found:
            yield one


class _Written:
    """What a stream has said so far: the items that are done, and the one in work."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.output: list[dict[str, Any]] = []
        self._number = 0  # of the next event
        self._text: str | None = None  # of the message in work
        self._draws = False  # whether an image is in work

    def event(self, kind: str, **fields: Any) -> str:
        """Return an event."""
        self._number += 1
        return event({"type": kind, "sequence_number": self._number - 1} | fields, kind)

    def begin(self) -> Iterator[str]:
        """Yield the events before the first item."""
        for kind in ("created", "in_progress"):
            whole = self._answer.whole("in_progress", [])
            yield self.event(f"response.{kind}", response=whole)

    def text(self, text: str) -> Iterator[str]:
        """Yield the events of more text."""
        item = self._answer.message(len(self.output), None)
        if self._text is None:
            self._text = ""
            yield self._item("added", item)
            yield self._of(item, "content_part.added", part=text_part(""), content_index=0)
        self._text += text
        yield self._of(item, "output_text.delta", delta=text, content_index=0, logprobs=[])

    def close(self) -> Iterator[str]:
        """Yield the events that end a text in work."""
        if self._text is None:
            return
        text, self._text = self._text, None
        item = self._answer.message(len(self.output), text)
        yield self._of(item, "output_text.done", text=text, content_index=0, logprobs=[])
        yield self._of(item, "content_part.done", part=text_part(text), content_index=0)
        yield self._item("done", item)
        self.output.append(item)

    def end(self, done: ReplyDone) -> Iterator[str]:
        """Yield the events behind the last item, of which the last has the whole response."""
        yield from self.close()
        status = status_of(done)
        whole = self._answer.whole(status, self.output, done)
        yield self.event(f"response.{status}", response=whole)

    def image(self, told: Partial | Drawn) -> Iterator[str]:
        """Yield the events of an image, whole or not, and of a text that ends before it."""
        yield from self.close()
        item, kind = self._answer.image(len(self.output), None), "image_generation_call"
        if not self._draws:
            self._draws = True
            yield self._item("added", item)
            yield self._of(item, f"{kind}.in_progress")
            yield self._of(item, f"{kind}.generating")
        if isinstance(told, Partial):
            shown = {"partial_image_b64": self._answer.base64(told.pixels)}
            number = {"partial_image_index": told.number}
            yield self._of(item, f"{kind}.partial_image", **shown, **number, **self._answer.look())
            return
        self._draws = False
        item = self._answer.image(len(self.output), told.pixels)
        yield self._of(item, f"{kind}.completed")
        yield self._item("done", item)
        self.output.append(item)

    def _item(self, what: str, item: dict[str, Any]) -> str:
        return self.event(f"response.output_item.{what}", output_index=len(self.output), item=item)

    def _of(self, item: dict[str, Any], kind: str, **fields: Any) -> str:
        place = {"item_id": item["id"], "output_index": len(self.output)}
        return self.event(f"response.{kind}", **place, **fields)

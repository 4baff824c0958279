"""Limits bound what clients can ask of a server, so that no request takes it from the others."""

from dataclasses import dataclass, fields

MAX_CONNECTIONS = 1000
HEAD_S = 10  # in which the head of a request must have come
IDLE_S = 30  # for which a connection that was answered is kept
STOP_S = 5  # for which replies may go on after Ctrl-C


@dataclass(frozen=True)
class Limits:
    """Limits of one server. Raises ValueError, naming every problem at once."""

    batch: int = 16
    """Replies in work at once."""
    max_waiting: int = 128
    """Replies that wait to be worked on, of all clients; more are refused with 503."""
    max_waiting_of_client: int = 64
    """Replies of one client that wait; more are refused with 429."""
    requests_a_minute: int = 600
    """Requests of one client, a tenth of them at once; more are refused with 429."""
    memory_bytes: int | None = None
    """Of the keys and values of all conversations, and of questions about candidates; None: half of
    what is free at the start."""
    prefixes: int = 64
    """Conversations whose keys and values are kept for their next turn, as far as memory has
    room."""
    known_images: int = 4096
    """Drawn images whose codes are kept, so that one that comes back is read as it was drawn."""
    max_body_bytes: int = 32 * 2**20
    """Of one request."""
    max_bodies_bytes: int = 256 * 2**20
    """Of all requests whose body is being read or waits for its images to be opened."""
    max_values: int = 250_000
    """Of one request in JSON: its commas and opening brackets, those within words too. Each value
    takes many times the bytes that it is written in."""
    body_seconds: int = 30
    """In which a request's body must have come."""
    max_fetched_bytes: int = 16 * 2**20
    """Of one image that is fetched by its address."""
    fetch_seconds: int = 10
    """In which an image must be fetched, with look-ups and redirects."""
    max_images: int = 16
    """In one request."""
    max_pixels: int = 16_000_000
    """Of one image that a client sends."""
    max_turns: int = 256
    """Messages of one conversation."""
    max_characters: int = 100_000
    """Of all words of one request."""
    max_n: int = 8
    """Replies or images of one request."""
    max_partial_images: int = 3
    """Of one drawing; OpenAI has as many."""

    def __post_init__(self) -> None:
        if problems := self.problems():
            raise ValueError("limits: " + "; ".join(problems))

    def problems(self) -> list[str]:
        """Return what is wrong with the values."""
        least = {"prefixes": 0, "known_images": 0, "max_partial_images": 0}
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        if self.memory_bytes is None:
            del values["memory_bytes"]
        return [
            f"{name} {value!r}: a whole number of at least {least.get(name, 1)} is wanted"
            for name, value in values.items()
            if not isinstance(value, int) or value < least.get(name, 1)
        ]

"""The serving loop works on the jobs of all clients in one thread, step by step.

In: jobs, from the server's event loop. Out: what each is told (job.py).

1. `offer` refuses what the queue has no room for. Everything else happens in the thread, so that
   the model has one user.
2. Between two steps the thread drops the jobs whose client has left, encodes and checks new ones,
   which are accepted or refused, and takes as many to work as there is room for, clients in turns.
3. A step of Generation advances all jobs in work: one answers in words, another is at row 7 of an
   image, a third diffuses. Its events are told; an image is decoded alone, so that its bytes do not
   depend on its neighbours.
4. Candidates that were drawn are judged between two steps, those of one request at a time.
5. An error within a step is unknown to be of one job: all jobs in work fail, and go on is begun
   anew. The server stays.
"""

import logging
import threading
from collections import deque
from collections.abc import Sequence

import torch

from ..candidates import choice_bytes, choose
from ..document import Document, Image
from ..events import Event, ImageDone, ImageProgress, ReplyDone
from ..generation import Generation
from ..grammar import Modality
from ..memory import free_for_layers
from ..model import Model
from ..room import NoRoom
from .drawn import DrawnImages
from .errors import ApiError, client_left, failed, stopping
from .job import Accepted, Drawn, Job, Partial
from .judging import Judging
from .limits import Limits
from .queue import FairQueue

LOG = logging.getLogger("unimodal.serve")
NOT_OURS = " (max_images, max_text_tokens)"  # fields that requests here do not have
RETRY_S = 5  # when a queue that is full may have room again


class ServingLoop:
    """A ServingLoop owns the model while it runs; `start` and `stop` frame its use."""

    def __init__(self, model: Model, limits: Limits) -> None:
        self._model, self._limits = model, limits
        devices = model.transformer.layer_devices
        self._max_bytes = limits.memory_bytes or free_for_layers(devices) // 2
        self._generation = self._new_generation()
        self._drawn = DrawnImages(limits.known_images)
        self._changed = threading.Condition()  # guards the five below
        self._new: deque[Sequence[Job]] = deque()  # of a request each, to be checked
        self._left: deque[Job] = deque()  # to be dropped
        self._judgings: deque[Judging] = deque()  # to be made
        self._waits: dict[str, int] = {}  # by client, how many jobs are new or queued
        self._stopping = False
        self._queue: FairQueue[Job] = FairQueue()
        self._working: dict[int, Job] = {}  # by number in the generation
        self._thread = threading.Thread(target=self._run, name="serving loop", daemon=True)
        self.num_images = self.num_cancelled = self.num_failed = 0
        self._read_before = 0  # tokens, by generations that failed

    def _new_generation(self) -> Generation:
        return Generation(self._model, self._limits.batch, self._limits.prefixes, self._max_bytes)

    # --- from the server's thread ---------------------------------------------------------------

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def end(self) -> None:
        """Let the step in work be the last one; whoever waits is told so."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def stop(self) -> None:
        """End, and wait for that."""
        self.end()
        self._thread.join()

    def offer(self, jobs: Sequence[Job]) -> None:
        """Take all jobs of a client's request, which differ by their seeds alone; raise ApiError
        where the queue has no room.
        """
        limits, name = self._limits, jobs[0].client[0]
        most = min(limits.max_waiting, limits.max_waiting_of_client)
        if len(jobs) > most:
            raise ApiError(
                400, f"n x candidates is {len(jobs)}: {most} replies of a client may wait here, so"
                " ask for fewer at a time", "n", "invalid_value",
            )  # fmt: skip
        with self._changed:
            if not self.is_alive:
                raise ApiError(503, "the server has stopped; its log says why", code="stopped")
            if self._stopping:
                raise stopping()
            if sum(self._waits.values()) + len(jobs) > limits.max_waiting:
                raise ApiError(
                    503, f"{limits.max_waiting} replies wait already: try again later",
                    code="queue_full", retry_after_s=RETRY_S,
                )  # fmt: skip
            if self._waits.get(name, 0) + len(jobs) > limits.max_waiting_of_client:
                raise ApiError(
                    429, f"{limits.max_waiting_of_client} of your replies wait already: let some"
                    " end first", code="too_many_waiting", retry_after_s=RETRY_S,
                )  # fmt: skip
            self._waits[name] = self._waits.get(name, 0) + len(jobs)
            self._new.append(jobs)
            self._changed.notify()

    def judge(self, judging: Judging) -> None:
        """Choose among the candidates of a request soon."""
        with self._changed:
            if self._stopping:
                judging.tell(stopping())
                return
            self._judgings.append(judging)
            self._changed.notify()

    def leave(self, job: Job) -> None:
        """Drop a job, whose client has gone, before the next step; one that is done may be left."""
        job.leave()
        with self._changed:
            self._left.append(job)
            self._changed.notify()

    @property
    def num_waiting(self) -> int:
        """Return how many jobs wait."""
        with self._changed:
            return sum(self._waits.values())

    @property
    def num_working(self) -> int:
        """Return how many jobs are in work."""
        return len(self._working)

    @property
    def num_read(self) -> int:
        """Return how many tokens the transformer was run over so far."""
        return self._read_before + self._generation.num_read

    @property
    def is_alive(self) -> bool:
        """Return whether the thread works or waits for work."""
        return self._thread.is_alive()

    # --- in the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            new, left = self._wait()
            if self._stopping:
                self._tell_all([job for jobs in new for job in jobs])
                return
            for job in left:
                self._drop(job)
            for jobs in new:
                self._check(jobs)
            self._judge()
            self._fill()
            self._step()

    def _wait(self) -> tuple[list[Sequence[Job]], list[Job]]:
        """Return requests that are new and jobs that are left, once there is anything to do."""
        with self._changed:
            while not (self._new or self._left or self._stopping or self._has_work()):
                self._changed.wait()
            new, left = list(self._new), list(self._left)
            self._new.clear()
            self._left.clear()
        return new, left

    def _tell_all(self, new: list[Job]) -> None:
        """Tell whoever waits that the server is stopping."""
        with self._changed:
            new += [job for jobs in self._new for job in jobs]
        queued = [self._queue.pop() for _ in range(len(self._queue))]
        for job in (*new, *queued, *self._working.values()):
            job.tell(stopping())
        for judging in self._judgings:
            judging.tell(stopping())

    def _has_work(self) -> bool:
        return bool(len(self._queue) or self._working or self._judgings)

    def _drop(self, job: Job) -> None:
        """Forget a job, wherever it is; its place is free at once."""
        number = next((n for n, one in self._working.items() if one is job), None)
        if number is not None:
            del self._working[number]
            self._generation.cancel(number)
        elif self._queue.remove(job, job.client):
            self._waits_no_more(job)
        else:  # it is done, or new: then it is seen to be gone when it is checked
            return
        self.num_cancelled += 1

    def _waits_no_more(self, job: Job) -> None:
        name = job.client[0]
        with self._changed:
            self._waits[name] -= 1
            if not self._waits[name]:
                del self._waits[name]

    def _check(self, jobs: Sequence[Job]) -> None:
        """Encode the images of a new request and put its jobs into the queue, or refuse them."""
        first = jobs[0]
        if first.gone:
            self.num_cancelled += len(jobs)
            self._turn_away(jobs, client_left())
            return
        try:
            document = self._model.codec.encode_document(self._drawn.restored(first.document))
            num_tokens = self._generation.check(document, first.sampling, first.modality)
            accepted = Accepted(num_tokens, self._num_image_tokens(document, first.modality))
        except ValueError as error:
            code = "context_length_exceeded" if isinstance(error, NoRoom) else None
            self._turn_away(jobs, ApiError(400, str(error).replace(NOT_OURS, ""), code=code))
            return
        except Exception:
            LOG.exception("a request could not be checked")
            self.num_failed += len(jobs)
            self._turn_away(jobs, failed())
            return
        for job in jobs:
            job.document = document
            job.tell(accepted)
            self._queue.put(job, job.client)

    def _turn_away(self, jobs: Sequence[Job], error: ApiError) -> None:
        for job in jobs:
            self._waits_no_more(job)
            job.tell(error)

    def _num_image_tokens(self, document: Document, modality: Modality | None) -> int:
        model, document = self._model.asked(document, self._model.constraint(modality))
        images = [part for part in document.parts if isinstance(part, Image)]
        return sum(map(model.sequencer.part_length, images))

    def _judge(self) -> None:
        """Make the oldest judging, if somebody waits for it and there is memory; as long as replies
        in work have that, it waits.
        """
        with self._changed:
            judging = self._judgings.popleft() if self._judgings else None
        if judging is None or judging.gone:
            return
        asked = self._model, judging.replies, judging.checks
        try:
            if self._generation.make_way(wanted := choice_bytes(*asked)):
                judging.tell(choose(*asked))
            elif self._working:
                with self._changed:
                    self._judgings.appendleft(judging)
            else:
                judging.tell(_too_large(wanted, self._max_bytes))
        except Exception:
            LOG.exception("candidates could not be judged")
            self.num_failed += 1
            judging.tell(failed())

    def _fill(self) -> None:
        """Take jobs to work, clients in turns, as far as there is room; what waits to be judged
        comes first.
        """
        if self._judgings:
            return
        while len(self._queue) and len(self._working) < self._limits.batch:
            job = self._queue.pop()
            self._waits_no_more(job)
            try:
                number = self._generation.submit(
                    job.document, job.sampling, job.modality, job.likeliest
                )
            except ValueError as error:  # the memory that was free when it was checked is not now
                job.tell(ApiError(400, str(error).replace(NOT_OURS, "")))
                continue
            except Exception:
                LOG.exception("a request could not be begun")
                self.num_failed += 1
                job.tell(failed())
                continue
            self._working[number] = job

    def _step(self) -> None:
        """Advance all jobs in work, and tell of it."""
        try:
            for event in self._generation.step():
                self._tell(event)
        except Exception:
            LOG.exception("a step failed, and with it %d replies", len(self._working))
            self.num_failed += len(self._working)
            for job in self._working.values():
                job.tell(failed())
            self._working.clear()
            self._read_before += self._generation.num_read
            self._generation = self._new_generation()

    @torch.inference_mode()
    def _tell(self, event: Event) -> None:
        job = self._working[event.request]
        if isinstance(event, ImageProgress):
            if event.partial is not None and job.is_due(event):
                pixels = self._model.codec.decode_partial(event.partial, event.known)
                job.tell(Partial(pixels, job.next_number()))
        elif isinstance(event, ImageDone):
            (image,) = self._model.codec.decode([event.image])
            assert image.pixels is not None, "it was decoded"
            self._drawn.add(image)
            self.num_images += 1
            job.end_image()
            job.tell(Drawn(image.pixels))
        else:
            job.tell(event)
        if isinstance(event, ReplyDone):
            del self._working[event.request]


def _too_large(wanted: int, allowed: int) -> ApiError:
    """Return why candidates are not compared."""
    return ApiError(
        400, f"to compare the candidates wants {wanted:,} bytes of keys and values, and {allowed:,}"
        " are allowed: ask for one", "candidates",
    )  # fmt: skip

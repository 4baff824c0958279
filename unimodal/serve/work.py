"""The work on one request: its jobs, from when they are offered until the client has its answer.

Whoever leaves before that stops the work within a step.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from fastapi import Request

from ..candidates import UNCHECKED
from ..events import ReplyDone, TextDelta, TokenScored
from .errors import client_left
from .job import Accepted, Drawn, Job
from .judging import Judging
from .server import Server
from .trial import Chosen, Trial


@dataclass
class Heard:
    """What a reply was: its words, and its images with how many characters come before each."""

    text: str = ""
    images: list[tuple[int, np.ndarray]] = field(default_factory=list)
    scored: list[TokenScored] = field(default_factory=list)
    done: ReplyDone | None = None

    @property
    def reply(self) -> ReplyDone:
        """Return the end of a reply that is over."""
        assert self.done is not None, "a reply that was heard is over"
        return self.done


class Work:
    """Work on jobs; `begin` and `end` frame it."""

    def __init__(self, server: Server, request: Request, jobs: Sequence[Job]) -> None:
        self.jobs, self._loop, self._request = list(jobs), server.loop, request
        self._watch: asyncio.Task[None] | None = None
        self._judging: Judging | None = None  # the latest one

    async def begin(self) -> list[Accepted]:
        """Offer the jobs and return that they are accepted; raise ApiError where they are not."""
        self._loop.offer(self.jobs)
        self._watch = asyncio.create_task(self._leave_with_client())
        try:
            return [await job.accepted() for job in self.jobs]
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Leave the jobs that are not done, and listen no more to whether the client does."""
        for job in self.jobs:
            self._loop.leave(job)
        if self._watch is not None:
            self._watch.cancel()

    async def _leave_with_client(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        for job in self.jobs:
            self._loop.leave(job)
        if self._judging is not None:
            self._judging.leave()

    async def heard(self) -> list[Heard]:
        """Return the whole replies, and end."""
        try:
            return [await hear(job) for job in self.jobs]
        finally:
            self.end()

    async def chosen(self, trial: Trial) -> tuple[list[Chosen], list[ReplyDone]]:
        """Return the best of every `trial.num` whole replies, and the ends of all, and end."""
        try:
            both = [(job, await hear(job)) for job in self.jobs]
            starts = range(0, len(both), trial.num)
            found = [await self._best(both[at : at + trial.num], trial) for at in starts]
        finally:
            self.end()
        return found, [one.reply for _, one in both]

    async def _best(self, some: list[tuple[Job, Heard]], trial: Trial) -> Chosen:
        if trial.num == 1:
            (only,) = some
            is_told = trial.is_in_vain and only[1].images
            return Chosen(*only, notes=(UNCHECKED,) if is_told else ())
        if self._watch is not None and self._watch.done():
            raise client_left()
        self._judging = Judging([one.reply.parts for _, one in some], trial.checks)
        self._loop.judge(self._judging)
        kept = await self._judging.kept()
        if kept.judgement is None:
            return Chosen(*some[kept.number])
        others = tuple(
            Chosen(*some[number], judgement=judgement)
            for number, judgement in kept.judgements.items()
            if number != kept.number
        )
        notes = (kept.said(some[0][0].sampling, trial.num),)
        return Chosen(*some[kept.number], notes, kept.judgement, others)


async def hear(job: Job) -> Heard:
    """Listen to a job until it is done."""
    heard = Heard()
    async for event in job.events():
        if isinstance(event, TextDelta):
            heard.text += event.text
        elif isinstance(event, Drawn):
            heard.images.append((len(heard.text), event.pixels))
        elif isinstance(event, TokenScored):
            heard.scored.append(event)
        elif isinstance(event, ReplyDone):
            heard.done = event
    return heard

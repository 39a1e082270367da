"""Models that are fetched in the background, one after the other, and how far each is."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict

from seesr.errors import CanceledError, OptionError, SeeSRError
from seesr.models.catalogue import ModelSource
from seesr.models.contents import Kind
from seesr.models.listing import ModelInfo
from seesr.models.manager import ModelManager
from seesr.models.plans import Plan

logger = logging.getLogger("seesr.models")

PullState = Literal["pending", "running", "done", "failed", "cancelled"]
PULL_ENDED: tuple[PullState, ...] = ("done", "failed", "cancelled")
KEPT = 100
"""Pulls that are remembered; of those that ended the oldest are forgotten."""
MAX_PENDING = 20
PROGRESS_SECONDS = 0.5
"""Between two reports of progress."""


class Pull(BaseModel):
    """A model that is fetched, was, or is going to be."""

    model_config = ConfigDict(frozen=True)

    id: str
    sequence: int = 1
    """Counts what is said of it: each state and progress is one more than the one before."""
    source: str
    by: str
    """The user who asked for it."""
    state: PullState = "pending"
    done: int = 0
    total: int = 0
    """Bytes; 0 where they are not known yet."""
    error: str | None = None
    model: ModelInfo | None = None
    """What it became."""


class Pulls:
    """Fetches models one after the other in a thread of its own. Thread-safe.

    What is said of a pull is its present state, so that who comes late or back has missed nothing.
    """

    def __init__(self, manager: ModelManager) -> None:
        self.manager = manager
        self._pulls = dict[str, Pull]()
        self._cancelled = set[str]()
        self._wanted = dict[str, tuple[ModelSource, Kind | None, str | None]]()
        """What was asked for, by pull."""
        self._queue = queue.Queue[tuple[str, Plan, Kind | None, str | None] | None]()
        self._changed = threading.Condition()  # of a re-entrant lock
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def start(
        self, source: ModelSource, by: str, kind: Kind | None = None, name: str | None = None, accepted: bool = False
    ) -> Pull:
        """Asks where the model is, and fetches it when those before are done.

        Raises:
            OptionError: too many wait already.
            WeightsError: the hub does not have it, or its licence is not accepted.
        """
        plan = self.manager.plan(source)
        self.manager.require_accepted(plan, accepted, by)
        pull = Pull(id=secrets.token_hex(8), source=plan.source, by=by, total=plan.size)
        with self._changed:
            if sum(each.state == "pending" for each in self._pulls.values()) >= MAX_PENDING:
                raise OptionError(f"{MAX_PENDING} models wait to be fetched already; wait until some are done.")
            self._forget()
            self._pulls[pull.id], self._wanted[pull.id] = pull, (source, kind, name)
            self._queue.put((pull.id, plan, kind, name))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="seesr-pulls", daemon=True)
                self._thread.start()
        return pull

    def retry(self, id: str, by: str) -> Pull:
        """Asks for a model once more; what was fetched of it is not fetched again.

        Raises:
            OptionError: there is no such pull, or too many wait already.
            WeightsError: as `start`.
        """
        with self._changed:
            self.pull(id)
            source, kind, name = self._wanted[id]
        return self.start(source, by, kind, name)

    def pulls(self) -> list[Pull]:
        """All that are remembered, the newest last."""
        with self._changed:
            return list(self._pulls.values())

    def pull(self, id: str) -> Pull:
        """One of them.

        Raises:
            OptionError: there is none of this id.
        """
        with self._changed:
            if id not in self._pulls:
                raise OptionError(f"there is no pull {id[:40]!r}.")
            return self._pulls[id]

    def cancel(self, id: str) -> None:
        """Ends a pull within a block of a MiB; what it fetched is kept for the next time.

        Raises:
            OptionError: there is none of this id.
        """
        with self._changed:
            if self.pull(id).state == "pending":
                self._set(id, state="cancelled")
            else:
                self._cancelled.add(id)

    def wait(self, id: str, after: int = 0, timeout: float | None = None) -> Pull:
        """The state of a pull as soon as its sequence number is above `after`, else after `timeout` seconds.

        Raises:
            OptionError: there is none of this id.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self.pull(id).sequence > after, timeout)
            return self.pull(id)

    def events(self, id: str, after: int = 0) -> Iterator[Pull]:
        """The states of a pull above the sequence number `after`, until it ends.

        Raises:
            OptionError: there is none of this id.
        """
        while True:
            pull = self.wait(id, after)
            if pull.sequence > after:
                yield pull
            if pull.state in PULL_ENDED or self._is_closed:
                return
            after = pull.sequence

    def close(self) -> None:
        """Ends the one that runs, and the thread."""
        with self._changed:
            self._is_closed = True
            self._cancelled |= self._pulls.keys()
            self._changed.notify_all()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (next_one := self._queue.get()) is not None:
            id, plan, kind, name = next_one
            with self._changed:
                if self._is_closed or self._pulls[id].state != "pending":
                    continue
                self._set(id, state="running")
            self._fetch(id, plan, kind, name)

    def _fetch(self, id: str, plan: Plan, kind: Kind | None, name: str | None) -> None:
        last = 0.0

        def tell(done: int, total: int) -> None:
            nonlocal last
            if done == total or time.monotonic() - last >= PROGRESS_SECONDS:
                last = time.monotonic()
                self._set(id, done=done, total=total)

        try:
            # Its licence was accepted when it was asked for.
            model = self.manager.pull(plan, kind, name, on_bytes=tell, cancelled=lambda: id in self._cancelled)
            self._set(id, state="done", model=model)
        except CanceledError:
            self._set(id, state="cancelled")
        except SeeSRError as error:
            self._set(id, state="failed", error=str(error))
        except Exception:
            # A thread that ended would leave the next ones waiting for ever.
            logger.exception("the pull %s failed; the next one goes on", id)
            self._set(id, state="failed", error="internal error; please report it.")

    def _set(self, id: str, **changes: object) -> None:
        with self._changed:
            pull = self._pulls[id]
            self._pulls[id] = pull.model_copy(update={"sequence": pull.sequence + 1, **changes})
            self._changed.notify_all()

    def _forget(self) -> None:
        ended = [id for id, pull in self._pulls.items() if pull.state in PULL_ENDED]
        for id in ended[: max(len(self._pulls) - KEPT + 1, 0)]:
            del self._pulls[id], self._wanted[id]
            self._cancelled.discard(id)

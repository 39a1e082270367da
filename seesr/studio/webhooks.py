"""Webhooks: tells addresses that users name of their jobs, in the form of Cog's HTTP API, signed as Standard Webhooks do.

A job's end is told until the address takes it, also after a restart of the studio, or until the tries are used up. What is
said before the end is told once, at most twice a second, and no more after the first failure.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.exc import SQLAlchemyError

from seesr.addresses import AddressRules, is_public, shown
from seesr.errors import AddressError
from seesr.jobs import ENDS, JobEvent
from seesr.studio.errors import FullDiskError, NotFoundError
from seesr.studio.records import Job, Webhook
from seesr.studio.settings import is_address
from seesr.studio.store import Store
from seesr.studio.webhook_messages import LIVE_SECONDS, TOLD_AS, LiveJob, cog_object, signed_headers
from seesr.version import __version__

logger = logging.getLogger("seesr.studio")

PAUSES = (5.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
"""Seconds between the tries to tell of an end."""
ANSWER_SECONDS = 10.0
"""How long an address may take to answer."""
IDLE_SECONDS = 2.0
"""After which the store is asked what is due."""
GONE = 410
"""The status with which an address says that it wants no more."""
SECRET_PREFIX, SECRET_BYTES = "whsec_", 32


class Webhooks:
    """Sends webhooks, to each user's in a thread of its own: a slow or dead address delays its own user's alone.

    Args:
        rules: which addresses are connected to.
        pauses: see `PAUSES`.
        answer_seconds: see `ANSWER_SECONDS`.
        idle_seconds: see `IDLE_SECONDS`.
    """

    def __init__(
        self,
        store: Store,
        rules: AddressRules,
        pauses: Sequence[float] = PAUSES,
        answer_seconds: float = ANSWER_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._store, self._rules = store, rules
        self._pauses, self._answer_seconds, self._idle_seconds = pauses, answer_seconds, idle_seconds
        self._changed, self._is_closing = threading.Condition(), False
        self._live = dict[str, LiveJob]()
        self._senders = dict[str, threading.Thread]()
        """By user."""
        self._thread = threading.Thread(target=self._work, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begins to send; first what the last end of the studio left."""
        self._thread.start()

    def close(self) -> None:
        """Sends no more. What was not taken yet stays due."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            threads = [self._thread, *self._senders.values()]
        for thread in threads:
            if thread.is_alive():
                thread.join(self._idle_seconds)

    def wake(self) -> None:
        """Looks at once what is due."""
        with self._changed:
            self._changed.notify_all()

    def check(self, webhook: Webhook) -> None:
        """Checks an address as far as that goes without its name being resolved.

        Raises:
            AddressError: it is not one of https, or not public.
        """
        if not webhook.url.isascii():
            raise AddressError("the webhook has characters beyond ASCII; write its name as IDNA, and its path with % codes.")
        self._rules.check_scheme(webhook.url)
        host = urlsplit(webhook.url).hostname or ""
        if is_address(host) and not is_public(host) and host not in self._rules.hosts:
            raise AddressError(f"{host} is not a public address; an operator may allow it with --webhook-allow.")

    def observe(self, job: Job, event: JobEvent) -> None:
        """Takes note of an event; see `dispatcher.Watcher`."""
        if job.webhook is None:
            return
        with self._changed:
            if event.kind in ENDS:
                self._live.pop(job.id, None)
            elif kind := TOLD_AS.get(event.kind):
                live = self._live.setdefault(job.id, LiveJob(job))
                live.add(event)
                live.is_changed |= kind in job.webhook.events
            self._changed.notify_all()

    def secret(self, user: str) -> bytes:
        """The key with which a user's webhooks are signed."""
        text = self._store.webhook_secret(user) or self._store.set_webhook_secret(user, _new_secret(), replace=False)
        return base64.b64decode(text.removeprefix(SECRET_PREFIX))

    def renew_secret(self, user: str) -> str:
        """A new secret of a user, which counts from now on; it is shown this once."""
        return self._store.set_webhook_secret(user, _new_secret())

    def _work(self) -> None:
        while not self._is_closing:
            try:
                users = set(self._store.users_with_due_webhooks(datetime.now(UTC)))
            except SQLAlchemyError:  # a thread that ended would send nothing for ever
                logger.exception("webhooks could not be read from the store; it is tried again")
                users = set[str]()
            with self._changed:
                waiting = [live for live in self._live.values() if live.is_changed and not live.is_failing]
                users |= {live.job.user for live in waiting if live.next_moment <= time.monotonic()}
                for user in users - self._senders.keys():
                    thread = threading.Thread(target=self._send_all, args=[user], name="webhooks of a user", daemon=True)
                    self._senders[user] = thread
                    thread.start()
                self._changed.wait(LIVE_SECONDS if waiting else self._idle_seconds)

    def _send_all(self, user: str) -> None:
        """Sends what there is for the webhooks of a user."""
        try:
            while self._send_next(user):
                pass
        except FullDiskError as error:  # it stays due
            logger.warning("%s", error)
            time.sleep(self._idle_seconds)
        finally:
            with self._changed:
                del self._senders[user]

    def _send_next(self, user: str) -> bool:
        with self._changed:
            if self._is_closing:
                return False
            ready = [live for live in self._live.values() if live.job.user == user and live.is_ready()]
            message = ready[0].message() if ready else None
        if message is not None:
            self._send_live(*message)
            return True
        due = self._store.due_webhook(user, datetime.now(UTC))
        if due is None:
            return False
        try:
            job = self._store.job(due.job)
        except NotFoundError:  # removed meanwhile
            return True
        self._send_end(job, due.tries)
        return True

    def _send_live(self, job: Job, id: str, content: dict[str, Any]) -> None:
        failure, _ = self._post(job, id, content)
        if failure is not None:
            logger.warning("webhook of job %s: %s; until its end no more is told", job.id, failure)
            with self._changed:
                if live := self._live.get(job.id):
                    live.is_failing = True

    def _send_end(self, job: Job, tries: int) -> None:
        failure, is_final = self._post(job, f"msg_{job.id}_completed", cog_object(job))
        if self._is_closing and failure is not None:
            return  # the store may be closed by now
        if failure is None:
            self._store.settle_webhook(job.id)
        elif is_final or tries >= len(self._pauses):
            logger.warning("webhook of job %s: %s; it is given up", job.id, failure)
            self._store.settle_webhook(job.id, f"the webhook was not delivered: {failure}.")
        else:
            logger.info("webhook of job %s: %s; it is tried again", job.id, failure)
            self._store.defer_webhook(job.id, datetime.now(UTC) + timedelta(seconds=self._pauses[tries]))

    def _post(self, job: Job, id: str, content: dict[str, Any]) -> tuple[str | None, bool]:
        """Why an address did not take a message, or None; and whether it never will."""
        assert job.webhook is not None
        body = json.dumps(content, ensure_ascii=False).encode()
        headers = signed_headers(self.secret(job.user), id, int(time.time()), body) | {
            "Content-Type": "application/json",
            "User-Agent": f"SeeSR/{__version__}",
        }
        try:
            status = self._rules.post(job.webhook.url, body, headers, self._answer_seconds)
        except AddressError as error:
            logger.debug("%s", error)  # what a name resolves to here is not for users
            return f"{shown(job.webhook.url)} is not a public address of https", True
        except (OSError, HTTPException, UnicodeError) as error:
            logger.debug("webhook of job %s: %s", job.id, error)
            return f"{shown(job.webhook.url)} does not answer", False
        return None if 200 <= status < 300 else f"{shown(job.webhook.url)} answered {status}", status == GONE


def _new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()

"""Webhooks in the store: which ends of jobs are still to be told, and with what each user's are signed."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, select, update

from seesr.studio.records import ENDED
from seesr.studio.store.database import Database
from seesr.studio.store.tables import JobRow, WebhookSecretRow


class DueWebhook(NamedTuple):
    """A job whose end is to be told now."""

    job: str
    tries: int
    """How often that failed."""


class WebhookStore(Database):
    """The ends of jobs that are to be told, and secrets. A job's end is due when it is added, and told when it has ended."""

    def users_with_due_webhooks(self, moment: datetime) -> list[str]:
        """The users to whose webhooks something is to be told."""
        with self._read() as session:
            return list(session.scalars(select(JobRow.user).where(_is_due(moment)).distinct()))

    def due_webhook(self, user: str, moment: datetime) -> DueWebhook | None:
        """What is to be told next to a webhook of a user's."""
        with self._read() as session:
            query = select(JobRow.id, JobRow.webhook_tries).where(JobRow.user == user, _is_due(moment))
            row = session.execute(query.order_by(JobRow.webhook_due).limit(1)).first()
            return None if row is None else DueWebhook(*row)

    def defer_webhook(self, job: str, due: datetime) -> None:
        """Counts a try that failed, after which the next one is due; of a job that is gone, nothing is done."""
        with self._write() as session:
            values = {"webhook_tries": JobRow.webhook_tries + 1, "webhook_due": due}
            session.execute(update(JobRow).where(JobRow.id == job).values(values))

    def settle_webhook(self, job: str, note: str | None = None) -> None:
        """Tells a job's end no more, and adds a note to the job; of one that is gone, nothing is done."""
        with self._write() as session:
            row = session.scalars(select(JobRow).where(JobRow.id == job)).first()
            if row is not None:
                row.webhook_due = None
                row.notes = [*row.notes, *([note] if note else [])]

    def webhook_secret(self, user: str) -> str | None:
        """With what a user's webhooks are signed; None where nothing is kept."""
        with self._read() as session:
            return session.scalar(select(WebhookSecretRow.secret).where(WebhookSecretRow.user == user))

    def set_webhook_secret(self, user: str, secret: str, replace: bool = True) -> str:
        """Keeps a secret, in place of one that there is only if `replace` says so; returns the one that is kept."""
        with self._write() as session:
            row = session.get(WebhookSecretRow, user)
            if row is not None and not replace:
                return row.secret
            session.merge(WebhookSecretRow(user=user, secret=secret))
            return secret


def _is_due(moment: datetime) -> ColumnElement[bool]:
    return and_(JobRow.webhook_due <= moment, JobRow.state.in_(ENDED))

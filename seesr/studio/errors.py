"""The studio's own errors, each with the HTTP status that a client sees."""

from __future__ import annotations

from seesr.errors import SeeSRError


class StudioError(SeeSRError):
    """Base of these errors."""

    status = 400


class NotFoundError(StudioError):
    """There is no such thing, or it is another user's."""

    status = 404


class UnknownNameError(NotFoundError):
    """There is no sampler or checkpoint of this name, or the picture to begin from was not sent."""


class ForbiddenError(StudioError):
    """This user may not do that."""

    status = 403


class ConflictError(StudioError):
    """What is asked for does not fit the state of the thing, such as the retry of a job that runs."""

    status = 409


class LimitError(StudioError):
    """A limit of the operator's: queue length, jobs an hour, quota."""

    status = 429


class JobFailedError(StudioError):
    """The job that a request waited for failed, or ended before it was done."""

    status = 500


class FullDiskError(StudioError):
    """There is no room on the disk."""

    status = 507


class StorageError(StudioError):
    """The storage in which finished pictures are kept does not answer."""

    status = 503


class UnauthorizedError(StudioError):
    """Nobody is logged in, or name and password are wrong."""

    status = 401


class TooManyTriesError(StudioError):
    """Too many wrong passwords came from one address, or for one name."""

    status = 429

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds."""


def status_of(error: SeeSRError) -> int:
    """The HTTP status that a client sees: the error's own; 400 of other errors, which a user can correct."""
    return error.status if isinstance(error, StudioError) else StudioError.status

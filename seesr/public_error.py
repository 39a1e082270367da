"""What a client of a service may be told of an error: sentences for users as they are, of anything else only its kind."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from seesr.debug import is_debugging
from seesr.errors import OutOfMemoryError, SeeSRError
from seesr.machine.out_of_memory import clear_tracebacks, is_out_of_memory


@contextmanager
def sanitize_errors() -> Iterator[None]:
    """Raises the public form of what its block raises, holding nothing of what was computed; a cancel goes on as it is."""
    try:
        yield
    except Exception as error:
        public = public_error(error)
        # What was raised holds what was computed, and a new error would hold that.
        cause: BaseException | None = error if public is not error else None
        while cause is not None:
            clear_tracebacks(cause)
            cause = cause.__cause__ or cause.__context__
        if public is error:
            raise
        raise public from None


def public_error(error: Exception) -> Exception:
    """The error that a client is told: itself with SEESR_DEBUG=1, else nothing that a library says, which may name files.

    What it hides goes to the process's own standard error, past the streams that a service may show to clients.
    """
    if isinstance(error, SeeSRError):
        return type(error)(*error.args)
    if is_debugging():
        return error
    os.write(2, "".join(traceback.format_exception(error)).encode(errors="backslashreplace"))
    if is_out_of_memory(error):
        return OutOfMemoryError("memory ran out beside the models; send a smaller picture.")
    return RuntimeError(f"something went wrong inside ({type(error).__name__}); please report it.")

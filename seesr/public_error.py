"""Errors as clients of a service see them: a `SeeSRError` with its message, any other exception only with its type."""

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
    """Replaces an exception of its block by its public form, which keeps no tensors alive; a cancellation is not changed."""
    try:
        yield
    except Exception as error:
        public = public_error(error)
        # The tracebacks hold the tensors in their frames, and a new error would hold the tracebacks.
        cause: BaseException | None = error if public is not error else None
        while cause is not None:
            clear_tracebacks(cause)
            cause = cause.__cause__ or cause.__context__
        if public is error:
            raise
        raise public from None


def public_error(error: Exception) -> Exception:
    """The error that a client sees; a library's message, which may name files, is shown only with SEESR_DEBUG=1.

    The hidden traceback is written to file descriptor 2, because a service may show `sys.stderr` to clients.
    """
    if isinstance(error, SeeSRError):
        return type(error)(*error.args)
    if is_debugging():
        return error
    os.write(2, "".join(traceback.format_exception(error)).encode(errors="backslashreplace"))
    if is_out_of_memory(error):
        return OutOfMemoryError("memory ran out outside the networks; send a smaller picture.")
    return RuntimeError(f"internal error ({type(error).__name__}); please report it.")

"""One thread for all computing, whichever threads ask for it."""

from __future__ import annotations

import contextvars
import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Generic, TypeVar

from seesr.runtime.memory import forget_frames

T = TypeVar("T")
NOTICED_AFTER = 0.05
"""Seconds after which a waiting thread looks whether it was interrupted itself."""


class OwnThread:
    """Runs calls one after the other on a thread of its own.

    PyTorch's libraries (oneDNN, MKL and its own kernels) keep memory for every thread that ever computed, more with every
    shape that it saw: a server that takes another thread for each request would grow by that much for each of them.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="seesr")
        # Started here: who is interrupted while it starts a thread would not know of the call.
        self._pool.submit(int).result()

    def run(self, call: Callable[[], T]) -> T:
        """What `call` gives or raises, in the caller's context variables.

        An exception that reaches the caller while it waits, such as a server's cancel, is raised in `call` as well; it
        goes on to the caller once `call` has ended.
        """
        running = _Interruptible(call)
        future = self._pool.submit(contextvars.copy_context().run, running)
        try:
            while not wait([future], NOTICED_AFTER).done:
                pass
        except BaseException as error:
            if not future.cancel():
                running.interrupt(type(error))
                wait([future])
                if (interrupted := future.exception()) is not None:
                    forget_frames(interrupted)
            raise
        try:
            return future.result()
        finally:
            # What was raised refers to this frame, and so to itself.
            del future


class _Interruptible(Generic[T]):
    """A call in which another thread can raise an exception, and never after it."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._thread = 0
        self._begun = threading.Event()
        self._lock = threading.Lock()
        self._over = False

    def __call__(self) -> T:
        self._thread = threading.get_ident()
        self._begun.set()
        try:
            return self._call()
        finally:
            # Who interrupts holds the lock: what was under way arrives here at the latest.
            with self._lock:
                self._over = True

    def interrupt(self, kind: type[BaseException]) -> None:
        """Raises an exception of this kind in the call, unless it is over."""
        self._begun.wait()
        with self._lock:
            if not self._over:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(kind))

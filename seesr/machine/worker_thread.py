"""One thread for all computing, whichever threads ask for it."""

from __future__ import annotations

import contextvars
import ctypes
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from seesr.machine.out_of_memory import clear_tracebacks

T = TypeVar("T")
NOTICED_AFTER = 0.05
"""Seconds after which a waiting thread looks whether it was interrupted itself."""


class WorkerThread:
    """Runs calls one after the other on a thread of its own.

    PyTorch's libraries (oneDNN, MKL and its own kernels) keep memory for every thread that ever computed, more with every
    shape that it saw: a server that takes another thread for each request would grow by that much for each of them.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        threading.Thread(target=self._work, name="seesr", daemon=True).start()

    def run(self, call: Callable[[], T]) -> T:
        """What `call` gives or raises, in the caller's context variables.

        An exception that reaches the caller while it waits, such as a server's cancel, is raised in `call` as well; it
        goes on to the caller once `call` has ended, and so does the last one of several. It may come at any moment: nothing
        here holds a lock of Python's own classes meanwhile, which would stay held.
        """
        context = contextvars.copy_context()
        running = _Call(lambda: context.run(call))
        try:
            self._calls.put(running)
            running.wait()
        except BaseException as error:
            self._end(running, type(error))
            raise
        return running.result()

    def _end(self, running: _Call[Any], kind: type[BaseException]) -> None:
        """Interrupts a call and waits for its end, whatever else comes meanwhile."""
        try:
            running.interrupt(kind)
            running.wait()
        except BaseException as error:
            self._end(running, type(error))
            raise
        running.forget()

    def _work(self) -> None:
        while True:
            self._calls.get()()


class _Call(Generic[T]):
    """A call in which another thread can raise an exception, and never before or after it."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._thread = 0
        """Where it runs, while it does."""
        self._lock, self._ended = threading.Lock(), threading.Lock()
        self._ended.acquire()
        self._begun = self._over = False
        self._result: list[T] = []
        self._error: BaseException | None = None

    def __call__(self) -> None:
        try:
            try:
                with self._lock:
                    if self._over:
                        return
                    self._begun, self._thread = True, threading.get_ident()
                self._result.append(self._call())
            finally:
                # Who interrupts holds the lock: what was under way arrives here at the latest.
                with self._lock:
                    self._thread = 0
        except BaseException as error:  # noqa: BLE001  # the caller raises it
            self._error = error
        finally:
            self._over = True
            self._ended.release()

    def interrupt(self, kind: type[BaseException]) -> None:
        """Raises an exception of this kind in the call, unless it has ended; one that has not begun never will."""
        with self._lock:
            if self._thread:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(kind))
            elif not self._begun:
                self._over = True

    def wait(self) -> None:
        """Until it has ended; again and again, for an exception comes to a thread only between two steps of Python."""
        while not self._over:
            self._ended.acquire(timeout=NOTICED_AFTER)

    def forget(self) -> None:
        """Lets go of what an error's traceback holds."""
        if self._error is not None:
            clear_tracebacks(self._error)

    def result(self) -> T:
        """What the call gave; or raises what it raised."""
        if self._error is None:
            return self._result[0]
        error, self._error = self._error, None
        try:
            raise error
        finally:
            # What is raised refers to this frame, and so to itself.
            del error

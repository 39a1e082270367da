"""One thread that runs all computing, whichever threads ask for it."""

from __future__ import annotations

import contextvars
import ctypes
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from seesr.machine.out_of_memory import clear_tracebacks

T = TypeVar("T")
POLL_INTERVAL = 0.05
"""Seconds after which a waiting thread checks whether it was interrupted."""


class WorkerThread:
    """Runs functions one after the other on a single thread.

    PyTorch's libraries (oneDNN, MKL and its own kernels) keep memory for every thread that ever computed, and more with each
    new shape: a server that uses another thread for each request would grow by that much for each of them.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call[Any]] = SimpleQueue()
        threading.Thread(target=self._run_calls, name="seesr", daemon=True).start()

    def run(self, function: Callable[[], T]) -> T:
        """Runs `function` on the thread in the caller's context variables; returns what it returns or raises what it raises.

        An exception raised in the waiting caller, such as a server's cancel, is raised in `function` too, and reaches the
        caller once `function` has ended; of several exceptions the last one does. It may come at any moment, so the code
        here uses none of Python's classes that hold a lock internally while they wait: that lock could stay locked.
        """
        context = contextvars.copy_context()
        call = _Call(lambda: context.run(function))
        try:
            self._calls.put(call)
            call.wait()
        except BaseException as error:
            self._interrupt(call, type(error))
            raise
        return call.result()

    def _interrupt(self, call: _Call[Any], exception: type[BaseException]) -> None:
        """Interrupts a call and waits until it ends, even if more exceptions come meanwhile."""
        try:
            call.interrupt(exception)
            call.wait()
        except BaseException as error:
            self._interrupt(call, type(error))
            raise
        call.clear_error()

    def _run_calls(self) -> None:
        while True:
            self._calls.get()()


class _Call(Generic[T]):
    """A function call in which another thread can raise an exception, but not before or after it."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._thread = 0
        """Identifier of the thread while the call runs, otherwise 0."""
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
                self._result.append(self._function())
            finally:
                # `interrupt` holds the lock, so an exception that it has sent arrives here at the latest.
                with self._lock:
                    self._thread = 0
        except BaseException as error:  # noqa: BLE001  # the caller raises it
            self._error = error
        finally:
            self._over = True
            self._ended.release()

    def interrupt(self, exception: type[BaseException]) -> None:
        """Raises this exception in a running call; a call that has not begun never will, and one that has ended is left."""
        with self._lock:
            if self._thread:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(exception))
            elif not self._begun:
                self._over = True

    def wait(self) -> None:
        """Waits until the call ends, in intervals: Python raises an exception in a thread only between two bytecodes."""
        while not self._over:
            self._ended.acquire(timeout=POLL_INTERVAL)

    def clear_error(self) -> None:
        """Drops what the traceback of the call's error holds."""
        if self._error is not None:
            clear_tracebacks(self._error)

    def result(self) -> T:
        """What the function returned; raises what it raised."""
        if self._error is None:
            return self._result[0]
        error, self._error = self._error, None
        try:
            raise error
        finally:
            # The traceback refers to this frame, which would refer back to the error: a reference cycle.
            del error

"""One lasting thread for all computation: calls, interrupts and errors reach it and come back."""

from __future__ import annotations

import contextvars
import ctypes
import gc
import queue
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from seesr.machine.worker_thread import WorkerThread


def test_all_calls_run_on_one_thread_and_in_the_callers_context() -> None:
    asked, own = contextvars.ContextVar("asked", default=0), WorkerThread()

    def ask(number: int) -> tuple[int, int]:
        asked.set(number)
        return own.run(lambda: (asked.get(), threading.get_ident()))

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(1, 20)))
    assert [number for number, _ in answers] == list(range(1, 20))
    assert len({thread for _, thread in answers}) == 1
    with pytest.raises(ValueError, match="invalid literal"):
        own.run(lambda: int("no number"))


@pytest.mark.parametrize("seconds", [0.001, 0.06])
def test_an_interrupt_reaches_the_call_and_nothing_after_it(seconds: float) -> None:
    own, reached = WorkerThread(), []

    def work() -> None:
        end = time.monotonic() + 5
        try:
            while time.monotonic() < end:
                pass
        except InterruptedError:
            reached.append(True)
            raise

    for _ in range(10):
        threads: queue.Queue[int] = queue.Queue()

        def wait_for_work(threads: queue.Queue[int] = threads) -> str:
            try:
                threads.put(threading.get_ident())
                own.run(work)
            except InterruptedError:
                return "interrupted"
            return "done"

        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(wait_for_work)
            caller = threads.get()
            time.sleep(seconds)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(caller), ctypes.py_object(InterruptedError))
            assert answer.result(4) == "interrupted"
        started = time.monotonic()
        assert own.run(lambda: 7) == 7
        assert time.monotonic() - started < 4, "the call itself has ended"
    assert seconds < 0.01 or len(reached) == 10


def test_a_second_interrupt_waits_for_the_end_too() -> None:
    own, begun, reached, ended = WorkerThread(), threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        try:
            begun.set()
            while True:
                pass
        except InterruptedError:
            reached.set()
            time.sleep(0.3)
        finally:
            time.sleep(0.1)
            ended.set()

    def interrupt(caller: int) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(caller), ctypes.py_object(InterruptedError))

    callers: queue.Queue[int] = queue.Queue()

    def wait_for_work() -> bool:
        callers.put(threading.get_ident())
        try:
            own.run(work)
        except InterruptedError:
            return ended.is_set()
        return False

    with ThreadPoolExecutor(1) as pool:
        answer, caller = pool.submit(wait_for_work), callers.get()
        assert begun.wait(4)
        interrupt(caller)
        assert reached.wait(4)
        interrupt(caller)
        assert answer.result(4), "it went on before the call had ended"
    assert own.run(lambda: 7) == 7


def test_a_call_that_was_interrupted_before_it_began_never_begins() -> None:
    own, begun, free = WorkerThread(), [], threading.Event()
    with ThreadPoolExecutor(2) as pool:
        pool.submit(own.run, free.wait)
        callers: queue.Queue[int] = queue.Queue()

        def wait_behind() -> None:
            callers.put(threading.get_ident())
            own.run(lambda: begun.append(True))

        waiting = pool.submit(wait_behind)
        caller = callers.get()
        time.sleep(0.1)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(caller), ctypes.py_object(InterruptedError))
        with pytest.raises(InterruptedError):
            waiting.result(4)
        free.set()
    own.run(lambda: None)
    assert begun == []


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_call_that_fails_lets_go_of_what_it_held(interrupted: bool) -> None:
    own, held, caller = WorkerThread(), [], threading.get_ident()

    def work() -> None:
        tensor = torch.zeros(10)
        held.append(weakref.ref(tensor))
        if not interrupted:
            raise InterruptedError
        time.sleep(0.1)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(caller), ctypes.py_object(InterruptedError))
        end = time.monotonic() + 5
        while time.monotonic() < end:
            pass

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(InterruptedError):
            own.run(work)
        assert held[0]() is None
    finally:
        gc.enable()

"""Two ways of doing the same work, timed in turns: what else the machine does hits both."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike

Made = TypeVar("Made")
Key = TypeVar("Key")


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Processor time of this process, all its threads together."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def wall_seconds(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@contextmanager
def single_thread() -> Iterator[None]:
    """One thread for what is timed, and as many as before after it."""
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def in_child(work: Callable[[], Made]) -> Made:
    """What `work` returns in a forked process of its own; EOFError if that dies."""
    context = get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sending.send(work()))
    process.start()
    sending.close()  # or a child that dies would be waited for
    try:
        return receiving.recv()
    finally:
        process.join()


def in_turns(ways: Mapping[Key, Callable[[], Made]], repeats: int) -> dict[Key, list[Made]]:
    """What each way returns, `repeats` times: one of every way in each turn."""
    found: dict[Key, list[Made]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            found[name].append(way())
    return found


def times_as_fast(usual: ArrayLike, ours: ArrayLike) -> dict[str, float]:
    """Ratio of two ways' times: median, least and most over the turns."""
    ratios = np.divide(usual, ours)
    return {
        "ratio": round(float(np.median(ratios)), 3),
        "low": round(float(ratios.min()), 3),
        "high": round(float(ratios.max()), 3),
    }


def compare(
    ways: Mapping[str, Callable[[], float]], repeats: int, warm_up: int = 0
) -> dict[str, Any]:
    """Both ways in turns, the usual one first, after `warm_up` turns: seconds, `times_as_fast`."""
    found = {name: times[warm_up:] for name, times in in_turns(ways, warm_up + repeats).items()}
    seconds = {name: float(np.median(times)) for name, times in found.items()}
    return {"seconds": seconds, **times_as_fast(*found.values())}

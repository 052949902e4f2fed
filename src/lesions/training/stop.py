"""Ending a run early without losing work: signals and the hours it may take."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from accelerate import Accelerator

RESUME = 75  # EX_TEMPFAIL: run the same command again


class Stopped(Exception):
    """A fold ended early and its state is saved; `code` is the exit code."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


class StopRequest:
    """Whether this run has to end: a signal came, or the hours since `begun` are used up."""

    def __init__(self, max_hours: float | None = None, begun: float | None = None):
        self.signal = 0
        self.begun = time.monotonic() if begun is None else begun
        # The margin is for what no estimate covers: starting, writing results, shutting down.
        self.seconds = None if max_hours is None else 3600 * max_hours - min(60, 180 * max_hours)

    def code(self, needed: float) -> int:
        """0 to go on, or the exit code; `needed` is how long the next stretch takes, in seconds."""
        if self.signal:
            return 128 + self.signal
        late = self.seconds is not None and time.monotonic() + needed - self.begun > self.seconds
        return RESUME if late else 0

    def agreed(self, needed: float, accelerator: Accelerator) -> int:
        """The largest exit code of all processes, 0 to go on; all of them have to ask."""
        code = torch.tensor([self.code(needed)], device=accelerator.device)
        return int(accelerator.gather(code).max())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as a request; a second one ends the process at once."""
        owner = os.getpid()

        def receive(number: int, _: FrameType | None) -> None:
            if os.getpid() != owner:
                return  # a data-loader worker: its parent decides
            if self.signal:
                os._exit(128 + number)
            self.signal = number

        before = {
            number: signal.signal(number, receive) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

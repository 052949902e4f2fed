"""Decode photographs of strangers in processes of their own, which can be ended."""

import os
import sys
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from subprocess import Popen
from typing import Any

import numpy as np

from lesions.data.decode import UnreadableImage, decode

MOST = 4  # photographs at once
PROGRAM = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r});"
    "from lesions.serving.decoders import decode_all; decode_all(int(sys.argv[1]))"
)


class Decoders:
    """`decode` from any thread; a process that takes over `seconds`, or crashes, is replaced."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.idle = SimpleQueue[tuple[Popen, Connection]]()
        for _ in range(min(os.cpu_count() or 1, MOST)):
            self.start()

    def start(self) -> None:
        ours, theirs = Pipe()
        command = [sys.executable, "-c", PROGRAM, str(theirs.fileno())]
        self.idle.put((Popen(command, pass_fds=[theirs.fileno()]), ours))
        theirs.close()

    def __call__(self, *given: Any) -> tuple[np.ndarray, tuple[int, int]]:
        process, line = self.idle.get()
        found: Any = UnreadableImage(f"not decoded within {self.seconds:g} seconds")
        try:
            line.recv()  # it is ready
            line.send(given)
            alive = line.poll(self.seconds)
            found = line.recv() if alive else found
        except (EOFError, OSError):
            alive, found = False, UnreadableImage("its decoder crashed")
        if alive:
            self.idle.put((process, line))
        else:
            process.kill()
            process.wait()
            line.close()
            self.start()
        if isinstance(found, UnreadableImage):
            raise found
        return found


def decode_all(descriptor: int) -> None:
    """The main function of such a process: decodes until its parent is gone."""
    line = Connection(descriptor)
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            line.send("ready")
            try:
                line.send(decode(*line.recv()))
            except UnreadableImage as error:
                line.send(error)

"""What the scripts share: the docstring as help; wrong input is one message and exit code 2."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from lesions.errors import InputError


def build_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring, as written."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def existing(spec: str) -> str:
    """The type of an argument that names a run, which is looked for before torch is imported."""
    if not Path(spec).exists():
        from lesions.runs import find_run  # not above: --help needs no installed package

        try:
            find_run(spec)
        except InputError as error:  # of a ValueError argparse hides the message
            raise argparse.ArgumentTypeError(str(error)) from None
    return spec


def run(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit: 0 or what it returns, 2 with one message on wrong input.

    What is no fault of the program is wrong input too: a file that may not be read or written, a
    missing package, a device without enough memory.
    """
    code = 2
    try:
        sys.exit(main() or 0)
    except InputError as error:
        message = f"error: {error}"
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "lesions":
            raise
        message = (
            f"error: {error.name} is not installed in {sys.executable}: activate the environment"
            " (source .venv/bin/activate), or make it: make demo"
        )
    except BrokenPipeError:  # what is printed is read by head, say
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - or the flush at exit fails
        sys.exit(0)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        message = f"error: {error.filename or 'input or output'}: {error.strerror}"
    except KeyboardInterrupt:
        code, message = 130, "interrupted"
    except Exception as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
            raise
        message = (
            f"error: {str(error).splitlines()[0]} Give train.micro_batch (in training) or"
            " predict.batch_size (in prediction) a smaller value: --set train.micro_batch=16"
        )
    print(message, file=sys.stderr)
    sys.exit(code)


def pairs(option: str, values: list[str]) -> dict[str, list[str]]:
    """Repeated "name=value" arguments of `option`, collected by name."""
    collected: dict[str, list[str]] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not equals:
            raise InputError(f"{option} {value}: expected NAME=VALUE")
        collected.setdefault(name, []).append(rest)
    return collected

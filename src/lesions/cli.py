"""What the scripts share: the docstring as help; wrong input is one message and exit code 2."""

import argparse
import sys
from collections.abc import Callable

from lesions.errors import InputError


def build_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring, as written."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def run(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit: 0 or what it returns, 2 with one message on wrong input."""
    try:
        sys.exit(main() or 0)
    except InputError as error:
        code, message = 2, f"error: {error}"
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "lesions":
            raise
        code = 2
        message = (
            f"error: {error.name} is not installed in {sys.executable}: activate the environment"
            " (source .venv/bin/activate), or make it: make demo"
        )
    except KeyboardInterrupt:
        code, message = 130, "interrupted"
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

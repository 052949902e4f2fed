"""The one exception for what a user can put right, and how its messages name things."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """What was given is wrong: a script prints the message and exits with 2, without a traceback.

    The message says where (file, row, key), what is wrong and what to do or type next.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint " (did you mean X?)" with the most similar of the known words, "" without one."""
    close = get_close_matches(word, list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""


def listed(items, most: int = 5) -> str:
    """The first few of `items`, comma-separated, and how many more there are."""
    items = [str(item) for item in items]
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more

"""The one exception for what a user can put right."""


class InputError(ValueError):
    """What was given is wrong: a script prints the message and exits with 2, without a traceback.

    The message says where (file, row, key), what is wrong and what to do or type next.
    """


def listed(items, most: int = 5) -> str:
    """The first few of `items`, comma-separated, and how many more there are."""
    items = [str(item) for item in items]
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more

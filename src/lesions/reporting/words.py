"""What a report calls the lesions that the task looks for."""

from typing import NamedTuple


class Words(NamedTuple):
    """`kind` says what a lesion is ("is melanoma"), `one` and `many` name such lesions."""

    kind: str
    one: str
    many: str

    @property
    def title(self) -> str:
        """`many` at the start of a line."""
        return self.many.capitalize()


MELANOMA = Words("melanoma", "melanoma", "melanomas")
MALIGNANT = Words("malignant", "malignant lesion", "malignant lesions")


def words_of(task: str) -> Words:
    """The words for a task's positive lesions; of many classes, those for the malignant ones."""
    return MELANOMA if task == "melanoma" else MALIGNANT

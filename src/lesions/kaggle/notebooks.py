"""Notebooks made from the short templates beside this file; nobody edits them by hand."""

from importlib import resources
from string import Template
from typing import Any

KINDS = ("prepare", "train-fold", "predict", "blend")
MADE = "*Made by `scripts/kaggle_push.py` from a template in `src/lesions/kaggle`: do not edit.*\n"


def build_notebook(kind: str, **values: Any) -> str:
    """The notebook of `kind` as JSON, `values` filled into its template; the same each time.

    A value `x` stands for itself as $x, and as Python as $x_literal.
    """
    import jupytext

    templates = resources.files("lesions.kaggle") / "templates"
    template = (templates / f"{kind}.md").read_text(encoding="utf-8")
    first_cell = (templates / "first_cell.py").read_text(encoding="utf-8")
    filled = Template(template).substitute(
        values,
        first_cell=f"{MADE}\n```python\n{first_cell}```",
        **{f"{name}_literal": repr(value) for name, value in values.items()},
    )
    notebook = jupytext.reads(filled, fmt="md")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell{number}"  # random else: the same template has to give the same file
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
    }
    return str(jupytext.writes(notebook, fmt="ipynb"))

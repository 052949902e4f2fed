"""docs/serving.md: a served run's speed, what it says to bad files, and its page."""

from collections.abc import Mapping
from typing import Any

from lesions.reporting.markdown import table


def serving_page(results: Mapping[str, Any]) -> str:
    """The page, from what scripts/bench_serve.py measured."""
    machine = results["machine"]
    parts = [
        "<!-- Written by scripts/docs.py from docs/results/serving.json: do not edit. -->",
        "# A run served",
        "```\nmake serve RUN=effnet_b1\n"
        f"python scripts/bench_serve.py --run {results['run']} --bad-inputs FOLDER\n```",
        "![The page with a drawn lesion](serving.png)",
        "## Speed",
        f"`{results['run']}`: {results['folds']} folds of `{results['backbone']}` at "
        f"{results['image_size']} pixels, {results['views']} views each and dropout's masks, so "
        f"{results['folds'] * results['views']} passes a photograph, on {machine['cores']} cores "
        f"of {machine['cpu']} that {results['busy']:.1f} other processes wanted, too (load average "
        f"at the start). A client asks again when it is answered. {results['queue']} photographs "
        "may wait; beyond that the answer is 429 at once, and the client tries again a second "
        "later.",
        table(
            ["clients", "Grad-CAM", "answers/s", "median", "90 %", "99 %", "sent away (429)"],
            [
                [
                    str(load["clients"]),
                    "yes" if load["explain"] else "no",
                    f"{load['per_second']:.1f}",
                    *(f"{load['ms'][key]:.0f} ms" for key in ("p50", "p90", "p99")),
                    f"{load['refused']} of {load['requests']}",
                ]
                for load in results["loads"]
            ],
        ),
        "## Bad files",
        "A file that Pillow can decode is answered, however odd it is; the run's warnings say that "
        "it is no ordinary photograph of a lesion.",
        table(
            ["input", "status", "reason"],
            [
                [bad["input"], str(bad["status"]), bad["reason"] or "answered"]
                for bad in results["bad_inputs"]
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"

"""A study from its first run to its choice: what is done is not done again."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from lesions.inference.accelerator import build_accelerator
from lesions.study.config import MissingWeights, Planned, Study
from lesions.study.leaderboard import entry, measure, ranked
from lesions.training.fold import train_fold
from lesions.training.state import Busy
from lesions.training.stop import Stopped, StopRequest

WAIT = 5.0  # seconds between two looks at what another process is at

Entry = dict[str, Any]
T = TypeVar("T")


class Chosen(NamedTuple):
    """What both phases led to: the best architecture and the change of it that was better."""

    arm: str
    experiment: str | None
    phase1: list[Entry]
    phase2: list[Entry]
    final: list[Entry]  # best first: the chosen one with all its seeds, then the others
    grouped: list[str]  # runs of the chosen one where lesions are whole


def choose(study: Study, stop: StopRequest) -> Chosen:
    """Train what the study lists and choose by its rule, on validation alone.

    Stopped if `stop` asks for it: the same call goes on with the next unfinished run.
    """
    plans = {name: _seeds(study, name) for name in study.arms}
    rows = iter(finish([planned for of_arm, _ in plans.values() for planned in of_arm], stop))
    phase1 = [
        entry(name, [next(rows) for _ in of_arm], reason)
        for name, (of_arm, reason) in plans.items()
    ]
    best = ranked(phase1)[0]
    arm = best["name"]
    names = study.experiments(arm)
    changed = finish([study.plan(arm, name) for name in names], stop)
    phase2 = [entry(name, [run]) for name, run in zip(names, changed, strict=True)]
    order = ranked([best, *phase2])
    experiment = None if order[0] is best else order[0]["name"]
    last = [study.plan(arm, experiment, n) for n in range(study.seeds("final"))]
    grouped = [
        study.plan(arm, experiment, n, study.config.grouped)
        for n in range(study.seeds("grouped") if study.config.grouped and study.form.test else 0)
    ]
    runs = finish([*last, *grouped], stop)[: len(last)]
    known = {run["run"] for run in runs}
    runs += [run for run in order[0]["runs"] if run["run"] not in known]
    others = [one for one in ranked([*phase1, *phase2]) if one is not order[0]]
    final = [entry(order[0]["name"], runs), *others]
    return Chosen(arm, experiment, phase1, phase2, final, [planned.run for planned in grouped])


def finish(plans: Sequence[Planned], stop: StopRequest) -> list[dict[str, Any]]:
    """The runs' rows of the leaderboard, after training them or what is left of them.

    Several processes may be at one study, each on a GPU or some cores of its own: what another is
    at is passed over, and waited for in the end.
    """

    def train(planned: Planned) -> None:
        accelerator = build_accelerator(planned.config.train.precision)
        train_fold(planned.config, planned.run, 0, accelerator, stop)

    for planned in plans:
        with suppress(Busy):
            train(planned)
    for planned in plans:
        patiently(partial(train, planned), stop)
    return [measure(planned) for planned in plans]


def patiently(attempt: Callable[[], T], stop: StopRequest) -> T:
    """What `attempt` returns once no other process is at it; Stopped if `stop` asks for it."""
    while True:
        try:
            return attempt()
        except Busy:
            if code := stop.code(WAIT):
                raise Stopped(code) from None
            time.sleep(WAIT)


def _seeds(study: Study, arm: str) -> tuple[list[Planned], str]:
    """The arm's runs, or none and the reason."""
    try:
        return [study.plan(arm, seed=seed) for seed in range(study.seeds(arm))], ""
    except MissingWeights as error:
        return [], str(error)


def pools(final: Sequence[Entry], most: int) -> dict[str, list[dict[str, Any]]]:
    """What the final mean may be of: the best run, its seeds, and up to `most` of the best."""
    first = final[0]["runs"]
    found = {f"{final[0]['name']} alone": first[:1]}
    if len(first) > 1:
        found[f"{final[0]['name']}, {len(first)} seeds"] = list(first)
    for count in range(2, min(most, len(final)) + 1):
        members = [run for one in final[:count] for run in one["runs"]]
        found[f"the best {count} by the rule"] = members
    return found

"""A study from its first run to its choice: what is done is not done again."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lesions.inference.launch import build_accelerator
from lesions.study.config import MissingWeights, Planned, Study
from lesions.study.leaderboard import entry, measure, ranked
from lesions.training.fold import train_fold
from lesions.training.stop import StopRequest

Entry = dict[str, Any]


class Chosen(NamedTuple):
    """What both phases led to: the best architecture and the change of it that was better."""

    arm: str
    experiment: str | None
    phase1: list[Entry]
    phase2: list[Entry]
    final: list[Entry]  # best first: the chosen one with all its seeds, then the others


def choose(study: Study, stop: StopRequest) -> Chosen:
    """Train what the study lists and choose by its rule, on validation alone.

    Stopped if `stop` asks for it: the same call goes on with the next unfinished run.
    """
    phase1 = [_arm(study, name, stop) for name in study.arms]
    best = ranked(phase1)[0]
    arm = best["name"]
    phase2 = [entry(name, [finish(study.plan(arm, name), stop)]) for name in study.experiments(arm)]
    order = ranked([best, *phase2])
    experiment = None if order[0] is best else order[0]["name"]
    seeds = range(study.seeds("final"))
    runs = [finish(study.plan(arm, experiment, seed, final=True), stop) for seed in seeds]
    if study.form.final_epochs is None:
        known = {run["run"] for run in runs}
        runs += [run for run in order[0]["runs"] if run["run"] not in known]
    others = [one for one in ranked([*phase1, *phase2]) if one is not order[0]]
    return Chosen(arm, experiment, phase1, phase2, [entry(order[0]["name"], runs), *others])


def finish(planned: Planned, stop: StopRequest) -> dict[str, Any]:
    """The run's row of the leaderboard, after training it or what is left of it."""
    accelerator = build_accelerator(planned.config.train.precision)
    train_fold(planned.config, planned.run, 0, accelerator, stop)
    return measure(planned)


def _arm(study: Study, name: str, stop: StopRequest) -> Entry:
    if name in study.form.skip:
        return entry(name, [], study.form.skip[name])
    try:
        plans = [study.plan(name, seed=seed) for seed in range(study.seeds(name))]
    except MissingWeights as error:
        return entry(name, [], str(error))
    return entry(name, [finish(planned, stop) for planned in plans])


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

"""The GPU hours of docs/kaggle.md are those that the configs and the published rates give."""

import pytest
from kaggle_hours import RUNS

from lesions.config import load_config
from lesions.files import read_json
from lesions.kaggle.hours import INPUTS, WEEK, fit_published, work_out
from lesions.paths import CODE, at


def test_the_hours_are_of_todays_configs() -> None:
    written = read_json(CODE / "docs/results/kaggle_hours.json")
    now = work_out({name: load_config(at("configs") / f"{name}.yaml") for name in RUNS})
    assert {*written["configs"]} == {*RUNS}
    for name, part in now["configs"].items():
        before = written["configs"][name]
        assert part.pop("backbone") == before["backbone"]
        assert part == pytest.approx({key: before[key] for key in part}, rel=1e-3), name
    assert sum(part["run_hours"] for part in now["configs"].values()) < WEEK, "the plan"


def test_three_published_rates_are_met_by_two_costs() -> None:
    cost, misses = fit_published()
    assert (cost > 0).all()
    assert abs(misses).max() < 0.05


def test_every_input_names_its_source() -> None:
    assert all(item["source"] and item["how"] for item in INPUTS.values())

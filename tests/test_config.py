"""Configs: every shipped one loads, and every mistake is named with file and key."""

from pathlib import Path

import pytest

from lesions.config import Config, differences, load_config, load_dataset_config, run_name
from lesions.errors import InputError
from lesions.paths import at
from lesions.training.ablation import load_ablation, variant_runs

SEVERAL = ("ablation", "study")  # configs of many runs: src/lesions/training/ablation.py, study/
RUNS = [
    path
    for path in at("configs").rglob("*.yaml")
    if path.parent.name != "datasets" and not path.stem.startswith(SEVERAL)
]
COMPETITION = ["effnet_b1", "effnet_b3", "effnet_b4", "resnest50"]


@pytest.mark.parametrize("path", RUNS, ids=run_name)
def test_every_shipped_config_loads_and_opens_with_its_question(path: Path) -> None:
    load_config(path)
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ") and first.endswith(("?", "blend."))


@pytest.mark.parametrize("name", [path.stem for path in (at("configs") / "datasets").glob("*.yaml")])
def test_every_shipped_data_set_loads(name: str) -> None:
    load_dataset_config(name)


def test_competition_configs_differ_in_backbone_and_memory_alone() -> None:
    first, *others = (load_config(at("configs") / f"{name}.yaml").model_dump() for name in COMPETITION)
    for other in others:
        keys = {line.split(":")[0] for line in differences(first, other)}
        assert keys <= {"model.backbone", "train.micro_batch"}


def test_the_published_recipe_is_the_default() -> None:
    config = load_config(at("configs") / "effnet_b1.yaml")
    assert config.data.image_size == 256 and config.data.metadata == "clinical"
    assert config.train.lr == 2e-4 and config.train.weight_decay == 0.01
    assert config.train.epochs == 15 and config.train.warmup_epochs == 1
    assert config.train.batch_size == 128 and config.train.keep == "last"
    assert config.loss.smoothing == 0.05 and config.model.dropout_samples == 5
    assert config.predict.views == 4


@pytest.mark.parametrize(
    "change, message",
    [
        ("train.lr=-1", "train.lr: Input should be greater than 0"),
        ("train.learning_rate=1", "train.learning_rate: Extra inputs are not permitted"),
        ("predict.views=3", "predict.views: Input should be 1, 4 or 8"),
        ("train.epochs=many", "train.epochs: Input should be a valid integer"),
        ("train.micro_batch=100", "multiple of train.micro_batch"),
        ("train.lr", "expected key=value"),
    ],
)
def test_a_wrong_setting_is_named_with_its_key(change: str, message: str) -> None:
    with pytest.raises(InputError, match="config|--set") as error:
        load_config(at("configs") / "effnet_b1.yaml", [change])
    assert message in str(error.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(InputError) as error:
        load_config(at("configs") / "effnet_b1.yaml", ["train.lr=-1", "data.image_size=1"])
    assert "train.lr" in str(error.value) and "data.image_size" in str(error.value)


def test_yaml_reads_1e_4_as_a_number() -> None:
    assert load_config(at("configs") / "effnet_b1.yaml", ["train.lr=1e-4"]).train.lr == 1e-4


def test_extends_lays_the_differences_over_its_base(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("dataset: demo\nmodel: {backbone: x}\ntrain: {epochs: 3}\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\ntrain: {lr: 0.1}\n")
    config = load_config(tmp_path / "b.yaml")
    assert (config.train.epochs, config.train.lr, config.model.backbone) == (3, 0.1, "x")
    (tmp_path / "c.yaml").write_text("extends: b.yaml\n")
    with pytest.raises(InputError, match="one level only"):
        load_config(tmp_path / "c.yaml")


def test_a_missing_config_names_those_there_are() -> None:
    with pytest.raises(InputError, match=r"effnet_b1\.yaml"):
        load_config(at("configs") / "effnet_b9.yaml")


def test_a_run_is_named_after_its_path_below_configs(tmp_path: Path) -> None:
    assert run_name(at("configs") / "real" / "mobilenetv2.yaml") == "real/mobilenetv2"
    assert run_name(tmp_path / "mine.yaml") == "mine"


def test_a_config_cannot_be_changed_after_loading() -> None:
    config = Config.model_validate({"dataset": "demo", "model": {"backbone": "x"}})
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1  # type: ignore[misc]


def test_every_run_of_an_ablation_has_a_config_that_differs_from_the_base() -> None:
    path = at("configs") / "ham10000" / "ablation.yaml"
    runs = variant_runs(path, load_ablation(path))
    base = runs.pop("base")[1]
    assert len(runs) > 5 and all(config != base for _, config in runs.values())
    assert {config.train.epochs for _, config in runs.values()} == {base.train.epochs}


def test_an_ablation_with_a_wrong_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ablation.yaml").write_text("base: x.yaml\nvariant: {a: [b=1]}\n")
    with pytest.raises(InputError, match="variants"):
        load_ablation(tmp_path / "ablation.yaml")

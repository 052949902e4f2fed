"""Configs: every shipped one loads, and every mistake is named with file and key."""

import subprocess
import sys
from importlib import import_module

import pytest

from lesions.config import differences, load_config, load_dataset_config, run_name, saved_config
from lesions.errors import InputError
from lesions.paths import CODE, at

SEVERAL = ("ablation", "study", "published")  # read by studies/, not by scripts/train.py
SHIPPED = [path for path in at("configs").rglob("*.yaml") if not path.stem.startswith(SEVERAL)]
RUNS = [path for path in SHIPPED if path.parent.name != "datasets"]
DATA_SETS = [path.stem for path in at("configs/datasets").glob("*.yaml")]
WITH_RUN = ("predict", "calibrate", "report", "explain", "serve")
COMPETITION = ["effnet_b1", "effnet_b3", "effnet_b4", "resnest50"]


@pytest.mark.parametrize("path", RUNS, ids=run_name)
def test_every_shipped_config_loads_and_opens_with_its_question(path):
    load_config(path)
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ") and first.endswith(("?", "blend."))


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_shipped_data_set_loads_and_says_its_command(name):
    load_dataset_config(name)
    text = at("configs/datasets", f"{name}.yaml").read_text()
    assert f"scripts/prepare.py --dataset {name}" in text


def test_competition_configs_differ_in_backbone_and_memory_alone():
    first, *others = (load_config(name).model_dump() for name in COMPETITION)
    for other in others:
        keys = {line.split(":")[0] for line in differences(first, other)}
        assert keys <= {"model.backbone", "train.micro_batch"}


def test_the_published_recipe_is_the_default_and_cannot_be_changed_once_loaded():
    config = load_config(at("configs") / "effnet_b1.yaml")
    assert load_config("effnet_b1", ["train.lr=1e-4"]).train.lr == 1e-4  # text to YAML 1.1
    assert config.data.image_size == 256 and config.data.metadata == "clinical"
    assert config.train.lr == 2e-4 and config.train.weight_decay == 0.01
    assert config.train.epochs == 15 and config.train.warmup_epochs == 1
    assert config.train.batch_size == 128 and config.train.keep == "last"
    assert config.loss.smoothing == 0.05 and config.model.dropout == 0.5
    assert config.predict.views == 4
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "changes, message",
    [
        (["train.lr=-1"], "train.lr: Input should be greater than 0"),
        (["train.learning_rate=1"], "train.learning_rate: Extra inputs are not permitted"),
        (["train.epoch=1"], "did you mean epochs?"),
        (["predict.views=3"], "predict.views: Input should be 1, 4 or 8"),
        (["train.epochs=many"], "train.epochs: Input should be a valid integer"),
        (["train.micro_batch=100"], "multiple of train.micro_batch"),
        (["train.micro_batch=1"], "micro_batch: Input should be greater than or equal to 2"),
        (["loss.pos_weight=-5"], "loss.pos_weight"),
        (["loss.pos_weight=.inf"], "finite number"),
        (["train.lr=.inf"], "train.lr: Input should be a finite number"),
        ([f"seed={2**70}"], "seed: Input should be less than"),
        (["train.lr"], "expected key=value"),
        (["train.lr=-1", "data.image_size=1"], "train.lr: ... data.image_size: "),
        (["train.small_size=128"], "train.small_size must be below data.image_size, with"),
        (["train.small_size=256", "train.small_epochs=3"], "train.small_size must be below"),
        (["train.small_size=128", "train.small_epochs=15"], "from 1 to below train.epochs"),
        (["train.stages=[{epochs: 2}, {epochs: 3}]"], "epochs is 15, but train.stages have 5"),
        (["data.task=diagnosis7"], "cross_entropy or focal"),
        (["data.task=melanoma", "train.monitor=macro_f1"], "monitor macro_f1 is not defined for"),
        (["data.task=null", "train.monitor=balanced_accuracy"], "balanced_accuracy is not defined"),
        (["data.task=diagnosis7", "train.monitor=f2", "loss.kind=focal"], "f2 is not defined for"),
    ],
)
def test_wrong_settings_are_named_with_their_keys(changes, message):
    with pytest.raises(InputError, match="config|--set") as error:
        load_config(at("configs") / "effnet_b1.yaml", changes)
    assert all(part in str(error.value) for part in message.split(" ... "))


def test_system_003_keeps_the_best_epoch_and_its_ensemble_is_of_384_pixels():
    one = load_config("system003/effnet_b1")
    assert (one.data.metadata, one.train.patience, one.train.keep) == ("full", 4, "best")
    for member, backbone in {"b3": "b3", "b4": "b4", "resnest50": "resnest50"}.items():
        config = load_config(f"system003/ensemble_{member}")
        assert config.data.image_size == 384 and backbone in config.model.backbone
        assert load_dataset_config(config.dataset).folds == 3
    assert load_config("system003/effnet_b3_512").data.image_size == 512


def test_extends_lays_the_differences_over_its_base(tmp_path):
    (tmp_path / "a.yaml").write_text("dataset: demo\nmodel: {backbone: x}\ntrain: {epochs: 3}\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\ntrain: {lr: 0.1}\n")
    config = load_config(tmp_path / "b.yaml")
    assert (config.train.epochs, config.train.lr, config.model.backbone) == (3, 0.1, "x")
    (tmp_path / "c.yaml").write_text("extends: b.yaml\n")
    with pytest.raises(InputError, match="one level only"):
        load_config(tmp_path / "c.yaml")


def test_a_run_is_named_after_its_path_below_configs(tmp_path):
    assert run_name(at("configs") / "real" / "mobilenetv2.yaml") == "real/mobilenetv2"
    assert run_name(tmp_path / "mine.yaml") == "mine"


@pytest.mark.parametrize(
    "command, message",
    [
        ("train --config effnet_b9", "did you mean effnet_b"),
        ("train --config effnet_b1 --set train.epoch=3", "did you mean epochs"),
        ("train --config effnet_b1 --set dataset=nowhere", "prepare.py --dataset nowhere"),
        ("prepare --dataset ham1000", "did you mean ham10000"),
        ("audit --dataset nowhere", "prepare.py --dataset nowhere"),
        *((f"{name} --run nowhere", "no such run") for name in WITH_RUN),
        ("export --run nowhere --to onnx", "no such run"),
        ("blend nowhere nowhere", "no such run"),
    ],
)
def test_a_wrong_name_is_answered_and_a_missing_package_named(command, message, capsys):
    script, *words = command.split()
    with pytest.raises((InputError, SystemExit)) as refused:
        import_module(script).main(words)
    assert message in f"{refused.value}{capsys.readouterr().err}"
    path = str(CODE / "scripts" / f"{script}.py")
    there = ["." if word == "nowhere" else word for word in words]  # a run's folder, it may be
    bare = subprocess.run([sys.executable, "-S", path, *there], capture_output=True, text=True)
    assert bare.returncode == 2 and bare.stderr.count("\n") == 1, bare.stderr
    assert "is not installed" in bare.stderr and "source .venv/bin/activate" in bare.stderr


def test_a_run_of_an_older_version_loads_unless_a_dropped_option_decided_its_numbers():
    saved = load_config("effnet_b1").model_dump()
    old = saved | {"train": saved["train"] | {"clip_grad": 1.0, "loader_timeout": 300.0}}
    assert saved_config(old, "config.yaml") == load_config("effnet_b1")
    del old["data"]["metadata_dropout"]  # whose default is not what those runs were trained with
    assert saved_config(old, "config.yaml").data.metadata_dropout == 0
    old["train"]["clip_grad"] = 5.0
    with pytest.raises(InputError, match=r"config.yaml: train.clip_grad is no longer an option"):
        saved_config(old, "config.yaml")

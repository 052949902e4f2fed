"""Configs: what decides a run's numbers, what a data set is made of, and how YAML becomes them.

Defaults are stated once, here. A YAML file states differences, may extend one other file, and is
changed on the command line by --set.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lesions.errors import InputError, listed, nearest
from lesions.paths import at, shown


class Section(BaseModel):
    """A part of a config: immutable; an unknown key or a number that is not finite is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(Section):
    """What a sample consists of."""

    image_size: int = Field(256, ge=28, le=2048)  # pixels, square
    # what is asked: the data set's own task when empty; diagnosis7 and 8 are of many classes
    task: Literal["melanoma", "malignant", "diagnosis7", "diagnosis8"] | None = None
    # full adds two columns that tell where a photograph comes from, ham10000 has HAM10000's finer
    # places of the body: see data/metadata.py
    metadata: Literal["none", "clinical", "full", "ham10000"] = "clinical"
    # in training, the share of rows without any metadata; each field alone with 3/4 of it
    metadata_dropout: float = Field(0.2, ge=0, lt=1)


class CbamConfig(Section):
    """Attention on the feature map: models/layers.py."""

    reduction: int = Field(16, ge=1)  # channels over the hidden width of the channel part
    kernel: int = Field(5, ge=0)  # side of the spatial part's window, odd; 0 leaves the part out

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel and kernel % 2 == 0:
            raise ValueError("must be odd, or 0")
        return kernel


class ModelConfig(Section):
    """The network of models/classifier.py."""

    backbone: str  # a full timm tag: the bare name may change its weights between releases
    # true: timm's own weights, downloaded or cached; false: random; else a local weights file
    pretrained: bool | str = True
    # overlays timm's pretrained_cfg, for local weights that expect another mean and std
    pretrained_cfg: dict[str, Any] = Field({})
    backbone_args: dict[str, Any] = Field({})  # further keywords of timm.create_model
    # how metadata enter: beside the pooled features, or as a weight of each channel of the map
    fusion: Literal["concat", "gate"] = "concat"
    cbam: CbamConfig | None = None
    head: Literal["linear", "multi_sample_dropout", "funnel"] = "multi_sample_dropout"
    dropout: float = Field(0.5, ge=0, lt=1)  # of each sample, or of the funnel's first layer
    funnel: list[Annotated[int, Field(ge=1)]] = Field([512, 256, 128])  # its layers' widths


class LossConfig(Section):
    """What is minimised: the formulas stand in training/loss.py."""

    kind: Literal["bce", "cross_entropy", "focal"] = "bce"
    smoothing: float = Field(0.05, ge=0, lt=1)
    # of bce; balanced: negatives / positives of the fold's training rows
    pos_weight: Literal["balanced"] | Annotated[float, Field(gt=0)] = "balanced"
    # of cross_entropy and focal: a class weighs (rows / its rows) ** alpha; 0 weighs all alike
    alpha: float = Field(0.5, ge=0, le=1)
    gamma: float = Field(2.0, ge=0)  # of focal: how much sure rows count less


class AugmentConfig(Section):
    """Probability of each training augmentation, and how far it goes at most."""

    flip: float = Field(0.5, ge=0, le=1)
    rotate90: float = Field(0.5, ge=0, le=1)
    shift_scale_rotate: float = Field(0.5, ge=0, le=1)
    hue_saturation: float = Field(0.5, ge=0, le=1)
    brightness_contrast: float = Field(0.5, ge=0, le=1)
    coarse_dropout: float = Field(0.5, ge=0, le=1)
    mild_warp: float = Field(0.0, ge=0, le=1)  # the one warp of the DermaMNIST study
    shift: float = Field(0.0625, ge=0, lt=1)  # of the side
    scale: float = Field(0.15, ge=0, lt=1)  # of the size, smaller and larger
    rotate: float = Field(45.0, ge=0, le=180)  # degrees
    hue: float = Field(10.0, ge=0, le=90)  # of OpenCV's 180
    saturation: float = Field(20.0, ge=0, le=255)
    value: float = Field(10.0, ge=0, le=255)
    brightness: float = Field(0.2, ge=0, le=1)  # of 255
    contrast: float = Field(0.2, ge=0, lt=1)


class StageConfig(Section):
    """Some epochs in which a part of the network learns; the schedule runs anew in each stage."""

    epochs: int = Field(ge=1)
    lr: float | None = Field(None, gt=0)  # train.lr when empty
    # head: all but the backbone; a number: also the backbone's last layers; a name: from it up
    trainable: Literal["all", "head"] | int | str = "all"


class TrainConfig(Section):
    """One fold's training."""

    epochs: int = Field(15, ge=1)
    batch_size: int = Field(128, ge=2)  # images a step, over all processes and micro-batches
    # images a forward pass, what fits one device's memory; batch norm of features needs two
    micro_batch: int = Field(128, ge=2)
    lr: float = Field(2e-4, gt=0)
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    weight_decay: float = Field(0.01, ge=0)
    layer_decay: float = Field(1.0, gt=0, le=1)  # lr of each backbone layer over the one above it
    schedule: Literal["cosine", "step", "plateau"] = "cosine"
    warmup_epochs: float = Field(1.0, ge=0)
    # step: epochs between two falls of the lr; plateau: epochs without a better `monitor`
    decay_epochs: int = Field(10, ge=1)
    decay_rate: float = Field(0.1, gt=0, lt=1)  # of each such fall
    stages: list[StageConfig] = Field([])  # staged unfreezing; empty: everything learns throughout
    # the backbone never learns: its features of predict.views views are computed once for all folds
    frozen: bool = False
    # progressive image size: the first `small_epochs` see images of `small_size` pixels
    small_size: int | None = Field(None, ge=28)
    small_epochs: int = Field(0, ge=0)
    sampler: Literal["shuffled", "balanced"] = "shuffled"  # balanced: classes equally often
    mixup: float = Field(0.0, ge=0)  # alpha of Beta(alpha, alpha); 0 switches it off
    cutmix: float = Field(0.0, ge=0)  # the same; with both, a coin decides for each batch
    ema_decay: float = Field(0.995, ge=0, lt=1)  # a step; 0 switches averaging off
    # best chooses the epoch on the very rows it is scored on: its AUC flatters
    keep: Literal["last", "best"] = "last"
    # what `best`, `patience` and plateau look at; its direction is known
    monitor: Literal[
        "auc", "average_precision", "log_loss", "loss", "f2", "balanced_accuracy", "macro_f1"
    ] = "auc"
    patience: int | None = Field(None, ge=1)  # epochs without a better `monitor` before stopping
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    workers: int = Field(2, ge=0)  # data-loader processes of each training process
    compile: bool = False
    deterministic: bool = False  # on a GPU: kernels that give the same bytes again, but slower
    grad_checkpointing: bool = False  # less memory for a third more time
    save_minutes: float = Field(10.0, gt=0)  # most work a killed run loses
    save_steps: int | None = Field(None, ge=1)  # also after so many steps
    tracker: Literal["none", "tensorboard", "wandb"] = "none"


class PredictConfig(Section):
    """Validation and test."""

    views: Literal[1, 4, 8] = 4  # identity; with flips; with turns
    batch_size: int = Field(256, ge=1)


class Config(Section):
    """A run: everything that decides its numbers."""

    dataset: str
    seed: int = Field(42, ge=0, lt=2**32)
    data: DataConfig = DataConfig()
    model: ModelConfig
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    predict: PredictConfig = PredictConfig()

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "Config":
        train, task = self.train, self.data.task or ""
        several = task.startswith("diagnosis")
        yes_or_no, of_classes = ["f2"], ["balanced_accuracy", "macro_f1"]
        fitting, wrong = (of_classes, yes_or_no) if several else (yes_or_no, of_classes)
        total = sum(stage.epochs for stage in train.stages)
        moving = train.stages or train.mixup or train.cutmix or train.small_size
        inside = self.model.cbam or self.model.fusion == "gate"
        problems = {
            "train.batch_size must be a multiple of train.micro_batch": train.batch_size
            % min(train.micro_batch, train.batch_size),
            f"loss.kind bce is for two classes, data.task {task} has more: take cross_entropy or"
            " focal": several and self.loss.kind == "bce",
            f"train.monitor {train.monitor} is not defined for"
            f" {'several classes' if several else 'a yes-or-no task'}: take auc,"
            f" average_precision, log_loss, loss or {', '.join(fitting)}": train.monitor in wrong,
            "train.small_size must be below data.image_size, with train.small_epochs from 1 to"
            " below train.epochs": (train.small_size or train.small_epochs)
            and not (
                0 < (train.small_size or 0) < self.data.image_size
                and 0 < train.small_epochs < train.epochs
            ),
            "train.frozen trains a head on features that are computed once: it goes without"
            " model.cbam, fusion gate, train.stages, mixup, cutmix and small_size": train.frozen
            and (moving or inside),
            f"train.epochs is {train.epochs}, but train.stages have {total}": train.stages
            and total != train.epochs,
        }
        if any(problems.values()):
            raise ValueError("; ".join(text for text, wrong in problems.items() if wrong))
        return self


class SourceConfig(Section):
    """Where one source's files lie."""

    folder: str  # the official CSVs
    images: list[str] = Field([])  # image folders or zips; the source's own layout when empty
    reader: str | None = None  # of data/sources.py, or generic; the source's name when empty
    # of a generic source: its CSV below `folder`; without one, one image folder a diagnosis
    table: str | None = None
    columns: dict[str, str] = Field({})  # the table's column: the CSV's, such as age_approx: Age
    diagnoses: dict[str, str] = Field({})  # the CSV's word: a diagnosis of data/tasks.py


class PreprocessConfig(Section):
    """What is done to a photograph before it enters the cache: data/preprocess.py."""

    fit: Literal["squash", "pad", "crop"] = "squash"  # how it becomes a square
    circle: bool = False  # crop a round dark field to the rectangle inside
    hair: bool = False  # paint over dark lines
    shades_of_gray: bool = False  # colours under a neutral light
    clahe: bool = False  # even out the contrast


class DatasetConfig(Section):
    """What scripts/prepare.py makes one table of."""

    sources: dict[str, SourceConfig] = Field(min_length=1)
    task: Literal["melanoma", "malignant"] = "melanoma"  # what `target` says: data/tasks.py
    stratify: Literal["target", "diagnosis"] = "target"  # what folds are alike in, besides source
    # Deotte's CSVs: sizes of the originals without a photograph, and the legacy folds
    deotte: str | None = None
    # grouped: ours; the others are published splits, for comparison: data/folds.py
    scheme: Literal[
        "grouped", "legacy", "official", "system001", "system002", "system003", "system004"
    ] = "grouped"
    preprocess: PreprocessConfig = PreprocessConfig()
    # of the cache: auto takes array unless it is too large for the free disk or the memory
    cache: Literal["auto", "array", "jpeg"] = "auto"
    near_duplicates: bool = False  # keep photographs that look alike to the pore in one group
    folds: int = Field(5, ge=2, le=100)
    holdout: float = Field(0.0, ge=0, lt=0.9)  # share of the labelled rows set aside as test
    seed: int = Field(42, ge=0, lt=2**32)


# Options that earlier versions lacked, where a run of theirs is not what the default says.
LACKED = {"data": {"metadata_dropout": 0.0}}
# Options of earlier versions -> the values with which a run is still the same model.
DROPPED: dict[str, tuple] = {
    "augment.fused": (True, False),  # how the augmentation was computed
    "model.dropout_samples": (5,),
    "train.clip_grad": (1.0,),
    "train.loader_timeout": (300.0,),
}


AnyConfig = TypeVar("AnyConfig", bound=Section)


def load_config(path: str | Path, changes: Sequence[str] = ()) -> Config:
    """The run config at `path`, or of that name below configs/, changed by "key=value" texts."""
    return load_section(Config, find_config(path), changes)


def load_dataset_config(name: str, changes: Sequence[str] = ()) -> DatasetConfig:
    """The data set config `configs/datasets/<name>.yaml`."""
    path = at("configs/datasets") / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise InputError(f"no data set '{name}'{nearest(name, known)}: configs/datasets has"
                         f" {listed(known, 30)}")  # fmt: skip
    return load_section(DatasetConfig, path, changes)


def find_config(spec: str | Path) -> Path:
    """The YAML file that `spec` means: a path, or a run's name such as effnet_b1.

    InputError with the nearest names if there is none.
    """
    given = Path(spec)
    name = given.as_posix().removeprefix("configs/").removesuffix(".yaml")
    for path in (given, at("configs", f"{name}.yaml"), at("configs", given)):
        if path.is_file():
            return path
    known = [run_name(path) for path in sorted(at("configs").rglob("*.yaml"))]
    raise InputError(f"{shown(given)}: no such config{nearest(name, known)}; there is"
                     f" {listed(known, 12)}")  # fmt: skip


def run_name(path: str | Path) -> str:
    """The config's path below configs/ without .yaml; its stem if it lies elsewhere."""
    path = Path(path).resolve().with_suffix("")
    configs = at("configs")
    return path.relative_to(configs).as_posix() if path.is_relative_to(configs) else path.name


def saved_config(
    values: Mapping[str, Any], where: str | Path, changes: Sequence[str] = ()
) -> Config:
    """The run config that a checkpoint's header or a run's config.yaml holds, with `changes`.

    Options that this version no longer has are dropped (DROPPED), and those that it has since are
    what they were without (LACKED), so that old runs still load; InputError if a dropped option
    decided the run's numbers, or for anything else unknown.
    """
    kept = _merge(LACKED, json.loads(json.dumps(values)))
    for key, neutral in DROPPED.items():
        section, _, name = key.partition(".")
        held = kept.get(section)
        if isinstance(held, dict) and name in held and held.pop(name) not in neutral:
            raise InputError(f"{shown(where)}: {key} is no longer an option: use the version of"
                             " this repository that trained it")  # fmt: skip
    return _validate(Config, _changed(kept, changes), where)


def saved_preprocess(facts: Any, where: str | Path) -> PreprocessConfig:
    """The preprocessing that a file's content says, plain where it says none; else InputError."""
    values = facts.get("preprocess", {}) if isinstance(facts, dict) else facts
    return _validate(PreprocessConfig, values, where)


def dump(config: Section) -> str:
    """The whole config as YAML, defaults included."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False)


def config_hash(config: Section) -> str:
    """Twelve hex digits of the resolved config."""
    canonical = json.dumps(config.model_dump(), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def differences(old: Mapping, new: Mapping, prefix: str = "") -> list[str]:
    """Lines "key: old -> new" for every leaf in which two nested mappings differ."""
    lines = []
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a} -> {b}")
    return lines


def load_section(kind: type[AnyConfig], path: Path, changes: Sequence[str] = ()) -> AnyConfig:
    """The config of that kind at `path`; InputError with every wrong key at once."""
    values = read_yaml(path)
    if "extends" in values:
        parent = values.pop("extends")
        if not isinstance(parent, str):
            raise InputError(f"{shown(path)}: extends: {parent}: give one file's name")
        base = read_yaml(path.parent / parent)
        if "extends" in base:
            raise InputError(f"{shown(path)}: extends a file that itself extends: one level only")
        values = _merge(base, values)
    return _validate(kind, _changed(values, changes), path)


def _changed(values: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The values with each "key=value" of `changes` merged in."""
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise InputError(f"--set {change}: expected key=value, such as train.lr=1e-4")
        nested: Any = _parse(text, f"--set {change}")
        for part in reversed(key.split(".")):
            nested = {part: nested}
        values = _merge(values, nested)
    return values


def _validate(kind: type[AnyConfig], values: Mapping, where: str | Path) -> AnyConfig:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            key = ".".join(map(str, item["loc"])) or "config"
            hint = _nearest_key(kind, item["loc"]) if item["type"] == "extra_forbidden" else ""
            problems.append(f"{shown(where)}: {key}: {item['msg']}{hint}")
        raise InputError("\n".join(problems)) from error


def _nearest_key(kind: type[Section], place: Sequence[int | str]) -> str:
    """A hint at the key that was meant, of the section in which an unknown one stands."""
    section: Any = kind
    for part in place[:-1]:
        field = getattr(section, "model_fields", {}).get(part)
        section = getattr(field, "annotation", None)
    return nearest(str(place[-1]), getattr(section, "model_fields", ()))


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{shown(path)}: no such config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{shown(path)}: not a readable text file: {error}") from error
    values = _parse(text, shown(path))
    if not isinstance(values, dict):
        raise InputError(f"{shown(path)}: expected keys with values")
    return values


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which a kilobyte expands to gigabytes with."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not taken: write the value out")
        return super().compose_node(parent, index)


def _parse(text: str, where: str) -> Any:
    """The YAML text's value, of what JSON has alone; InputError for anything else."""
    try:
        value = yaml.load(text, _Loader)
        json.dumps(value)
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"{where}: not valid YAML: {error}") from error
    return value


def _merge(base: Mapping, over: Mapping) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged

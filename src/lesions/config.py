"""The config of a run: everything that decides its numbers. Defaults are stated once, here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lesions.paths import CONFIGS
from lesions.settings import Section, load


class DataConfig(Section):
    """What a sample consists of."""

    image_size: int = Field(256, ge=28, le=2048)  # pixels, square
    # what is asked: the data set's own task when empty; diagnosis7 and 8 are of many classes
    task: Literal["melanoma", "malignant", "malignant_vasc", "diagnosis7", "diagnosis8"] | None = (
        None
    )
    # full adds two columns that tell where a photograph comes from, ham10000 has HAM10000's finer
    # places of the body: see data/metadata.py
    metadata: Literal["none", "clinical", "full", "ham10000"] = "clinical"


class CbamConfig(Section):
    """Attention on the feature map: models/attention.py."""

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
    dropout_samples: int = Field(5, ge=1)
    funnel: list[Annotated[int, Field(ge=1)]] = Field([512, 256, 128])  # its layers' widths


class LossConfig(Section):
    """What is minimised: the formulas stand in training/loss.py."""

    kind: Literal["bce", "cross_entropy", "focal"] = "bce"
    smoothing: float = Field(0.05, ge=0, lt=1)
    # of bce; balanced: negatives / positives of the fold's training rows
    pos_weight: Literal["balanced"] | float = "balanced"
    # of cross_entropy and focal: a class weighs (rows / its rows) ** alpha; 0 weighs all alike
    alpha: float = Field(0.5, ge=0, le=1)
    gamma: float = Field(2.0, ge=0)  # of focal: how much sure rows count less


class AugmentConfig(Section):
    """Probability of each training augmentation; their ranges stand in data/augmentation.py."""

    flip: float = Field(0.5, ge=0, le=1)
    rotate90: float = Field(0.5, ge=0, le=1)
    shift_scale_rotate: float = Field(0.5, ge=0, le=1)
    hue_saturation: float = Field(0.5, ge=0, le=1)
    brightness_contrast: float = Field(0.5, ge=0, le=1)
    coarse_dropout: float = Field(0.5, ge=0, le=1)
    mild_warp: float = Field(0.0, ge=0, le=1)  # the one warp of the DermaMNIST study
    fused: bool = True  # the same list in fewer passes over the pixels: data/fused.py


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
    micro_batch: int = Field(128, ge=1)  # images a forward pass: what fits one device's memory
    lr: float = Field(2e-4, gt=0)
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    weight_decay: float = Field(0.01, ge=0)
    layer_decay: float = Field(1.0, gt=0, le=1)  # lr of each backbone layer over the one above it
    schedule: Literal["cosine", "one_cycle", "step", "plateau"] = "cosine"
    warmup_epochs: float = Field(1.0, ge=0)  # one_cycle has a warm-up of its own
    # step: epochs between two falls of the lr; plateau: epochs without a better `monitor`
    decay_epochs: int = Field(10, ge=1)
    decay_rate: float = Field(0.1, gt=0, lt=1)  # of each such fall
    stages: list[StageConfig] = Field([])  # staged unfreezing; empty: everything learns throughout
    sampler: Literal["shuffled", "balanced"] = "shuffled"  # balanced: classes equally often
    mixup: float = Field(0.0, ge=0)  # alpha of Beta(alpha, alpha); 0 switches it off
    cutmix: float = Field(0.0, ge=0)  # the same; with both, a coin decides for each batch
    clip_grad: float = Field(1.0, gt=0)  # largest gradient norm
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
    loader_timeout: float = Field(300.0, gt=0)  # seconds after which a worker counts as hanging
    compile: bool = False
    deterministic: bool = False  # on a GPU: kernels that give the same bytes again, but slower
    grad_checkpointing: bool = False  # less memory for a third more time
    save_minutes: float = Field(10.0, gt=0)  # most work a killed run loses
    save_steps: int | None = Field(None, ge=1)  # also after so many steps
    tracker: Literal["none", "tensorboard", "wandb", "trackio", "mlflow"] = "none"


class PredictConfig(Section):
    """Validation and test."""

    views: Literal[1, 4, 8] = 4  # identity; with flips; with turns
    batch_size: int = Field(256, ge=1)


class Config(Section):
    """A run: everything that decides its numbers."""

    dataset: str
    seed: int = 42
    data: DataConfig = DataConfig()
    model: ModelConfig
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    predict: PredictConfig = PredictConfig()

    @model_validator(mode="after")
    def _micro_batch_fits(self) -> "Config":
        if self.train.batch_size % min(self.train.micro_batch, self.train.batch_size):
            raise ValueError("train.batch_size must be a multiple of train.micro_batch")
        return self

    @model_validator(mode="after")
    def _loss_fits_the_task(self) -> "Config":
        if (self.data.task or "").startswith("diagnosis") and self.loss.kind == "bce":
            raise ValueError(
                f"loss.kind bce is for two classes, data.task {self.data.task} has more:"
                " take cross_entropy or focal"
            )
        return self

    @model_validator(mode="after")
    def _stages_fill_the_epochs(self) -> "Config":
        total = sum(stage.epochs for stage in self.train.stages)
        if self.train.stages and total != self.train.epochs:
            raise ValueError(f"train.epochs is {self.train.epochs}, but train.stages have {total}")
        return self


def load_config(path: Path, changes: Sequence[str] = ()) -> Config:
    """The run config at `path`, with `changes` such as "train.lr=1e-4" laid over it."""
    return load(Config, Path(path), changes)


def run_name(path: Path) -> str:
    """The config's path below configs/ without .yaml; its stem if it lies elsewhere."""
    path = Path(path).resolve().with_suffix("")
    return path.relative_to(CONFIGS).as_posix() if path.is_relative_to(CONFIGS) else path.name

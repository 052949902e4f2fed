"""Each choice of a config against torch's own, a formula by hand, or what it promises."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import interrupted_run, tiny_run
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from train import main as train

from lesions.config import Config, LossConfig, ModelConfig, TrainConfig, load_config
from lesions.data.loading import TrainBatches
from lesions.errors import InputError
from lesions.inference.accelerator import build_accelerator
from lesions.inference.checkpoint import load_model
from lesions.inference.predict import predict
from lesions.models.classifier import LesionClassifier
from lesions.paths import at
from lesions.training import optim, steps
from lesions.training.fold import load_fold
from lesions.training.loss import build_loss, class_weights, focal, pos_weight, shares, smoothed_bce
from lesions.training.steps import Progress

TARGET = np.array([0] * 6 + [1] * 2)
TINY = ModelConfig(backbone="mobilenetv3_small_050", pretrained=False)


@pytest.fixture(scope="module")
def model() -> LesionClassifier:
    torch.manual_seed(0)
    return LesionClassifier(TINY, columns=2)


def test_class_weights_are_the_power_of_the_inverse_share_with_mean_one():
    """By hand: 8 / (2 * 6) and 8 / (2 * 2), square roots 0.8165 and 1.4142, mean 1.1153."""
    np.testing.assert_allclose(class_weights(TARGET, 2, 0.5), [0.7320, 1.2680], atol=1e-4)
    np.testing.assert_allclose(class_weights(TARGET, 2, 0.0), 1)


@pytest.mark.parametrize("kind", ["cross_entropy", "focal"])
def test_one_logit_is_the_second_of_two_classes(kind):
    loss = build_loss(LossConfig(kind=kind), TARGET, 2)  # type: ignore[arg-type]
    logit, target = torch.randn(8, 1), torch.tensor(TARGET).float()
    two = torch.cat([torch.zeros(8, 1), logit], dim=1)
    torch.testing.assert_close(loss(logit, target), loss(two, target))


def test_cross_entropy_is_weighted_by_class_and_smoothed():
    logit, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 1])
    weight = torch.tensor(class_weights(np.arange(9) // 4, 3, 1)).float()
    config = LossConfig(kind="cross_entropy", smoothing=0.1, alpha=1)
    loss = build_loss(config, np.arange(9) // 4, classes=3)
    smooth = F.one_hot(target, 3) * 0.9 + 0.1 / 3
    expected = -(smooth * weight * logit.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss(logit, target), expected)
    assert not torch.isclose(expected, F.cross_entropy(logit, target))


def test_focal_loss_by_hand():
    """p = 0.75, smoothed 0.95 * 0.75 + 0.05 * 0.25 = 0.725; -1.5 * 0.275^2 * ln 0.725 = 0.03648."""
    logit = torch.tensor([[0.0, np.log(3.0)]])
    share, weight = torch.tensor([[0.0, 1.0]]), torch.tensor([0.5, 1.5])
    found = focal(logit, share, weight, gamma=2, smoothing=0.1)
    assert found.item() == pytest.approx(0.03648, abs=1e-5)
    flat = focal(logit, share, torch.ones(2), gamma=0, smoothing=0)
    assert flat.item() == pytest.approx(-np.log(0.75))
    certain = torch.tensor([[100.0, -100.0]], requires_grad=True)  # and wrong: still it teaches
    focal(certain, share, torch.ones(2), 2.0, 0.0).backward()
    assert certain.grad is not None and certain.grad.isfinite().all() and certain.grad[0, 1] < 0


def test_mixed_targets_have_the_loss_between_their_parts():
    """The cross-entropy is linear in the target, whichever way it is weighted."""
    for kind in ("bce", "cross_entropy"):
        loss = build_loss(LossConfig(kind=kind), TARGET, 2)  # type: ignore[arg-type]
        logit = torch.randn(1, 1)
        ends = [loss(logit, torch.tensor([end])) for end in (0.0, 1.0)]
        torch.testing.assert_close(loss(logit, torch.tensor([0.3])), 0.7 * ends[0] + 0.3 * ends[1])
    assert shares(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_targets_are_smoothed_before_positives_are_weighted():
    logit, smooth = torch.tensor([0.7, -1.2]), torch.tensor([0.025, 0.975])
    expected = 10.45 * smooth * F.logsigmoid(logit) + (1 - smooth) * F.logsigmoid(-logit)
    found = smoothed_bce(logit, torch.tensor([0.0, 1.0]), 0.05, 10.45)
    torch.testing.assert_close(found, -expected.mean())


def test_the_positive_weight_of_the_full_merge_is_10_45():
    target = np.r_[np.ones(5_106), np.zeros(58_457 - 5_106)]
    assert pos_weight(LossConfig(), target) == pytest.approx(10.45, abs=5e-3)
    assert pos_weight(LossConfig(pos_weight=2.0), target) == 2.0


def test_the_learning_rate_warms_up_then_falls_to_zero_as_a_cosine():
    config = TrainConfig(warmup_epochs=1)
    factors = [optim.schedule_factor(config, step, 100, 10, []) for step in range(100)]
    assert factors[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert factors[10] == 1 and factors[55] == pytest.approx(0.5) and factors[99] < 1e-3
    assert all(np.diff(factors[10:]) < 0)


def test_the_step_schedule_falls_every_few_epochs():
    config = TrainConfig(schedule="step", decay_epochs=2, decay_rate=0.1, warmup_epochs=0.5)
    factors = [optim.schedule_factor(config, step, 60, 10, []) for step in range(60)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[5:20] == [1] * 15 and factors[20:40] == pytest.approx([0.1] * 20)
    assert factors[40:] == pytest.approx([0.01] * 20)


def test_plateau_falls_after_epochs_without_a_better_value():
    assert optim.plateaus([0.5, 0.6, 0.6, 0.5], patience=2) == 1
    assert optim.plateaus([0.5, 0.6, 0.6, 0.7, 0.6], patience=2) == 0
    assert optim.plateaus([-0.5, -0.6, -0.7], patience=2) == 1
    assert optim.plateaus([0.5] + [0.4] * 6, patience=2) == 3
    config = TrainConfig(schedule="plateau", decay_epochs=2, warmup_epochs=0, decay_rate=0.5)
    assert optim.schedule_factor(config, 45, 100, 10, [0.6, 0.5, 0.5, 0.5]) == 0.5


@pytest.mark.parametrize("monitor, best", [("auc", 2), ("log_loss", 3), ("loss", 3)])
def test_the_best_epoch_is_that_of_the_monitored_metric(monitor, best):
    values = [(0.5, 0.9, 0.8), (0.8, 0.7, 0.6), (0.8, 0.2, 0.1), (float("nan"), 0.9, 0.3)]
    history = [dict(zip(("auc", "log_loss", "loss"), row, strict=True)) for row in values]
    assert Progress(history=history).best_epoch(monitor) == best
    assert Progress(history=[dict(history[3])] * 2).best_epoch("auc") == 2


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD])
def test_optimisers_have_all_parameters_once_and_lower_layers_learn_more_slowly(model, kind):
    layers = optim.layers_of(model.backbone)
    above = max(layers.values()) + 1
    for decay in (1.0, 0.5):
        config = TrainConfig(optimizer=kind.__name__.lower(), layer_decay=decay, weight_decay=0.03)
        optimizer = optim.build_optimizer(model, config)
        assert type(optimizer) is kind
        assert {group["weight_decay"] for group in optimizer.param_groups} == {0.03}
        found = [(id(p), group) for group in optimizer.param_groups for p in group["params"]]
        assert sorted(key for key, _ in found) == sorted(id(p) for p in model.parameters())
        scale = {key: group.get("lr_scale", 1) for key, group in found}
        for name, parameter in model.backbone.named_parameters():
            assert scale[id(parameter)] == decay ** (above - layers[name])
        assert scale[id(model.head.linear.weight)] == 1
    assert len(set(scale.values())) == above + 1 > 5


def test_stages_follow_each_other_and_fill_the_epochs():
    stages = [{"epochs": 2, "trainable": "head", "lr": 0.01}, {"epochs": 3}]
    config = TrainConfig.model_validate({"epochs": 5, "stages": stages})
    found = [optim.stage_of(config, epoch) for epoch in range(5)]
    assert [stage.trainable for stage, _ in found] == ["head"] * 2 + ["all"] * 3
    assert [first for _, first in found] == [0, 0, 2, 2, 2]


def test_a_staged_run_trains_the_head_first_and_keeps_what_is_frozen(demo, monkeypatch):
    """With the other choices of a run beside it: they have to go together."""
    seen, sizes = [], set()
    step = steps.Stepper.step

    def watched(self, micro):
        stem = self.network.backbone.conv_stem.weight.detach().clone()
        hook = self.network.register_forward_pre_hook(lambda _, given: sizes.add(given[0].shape[1]))
        sizes.clear()
        head = self.network.head.linear.weight.detach().clone()
        step(self, micro)
        hook.remove()
        seen.append((
            torch.equal(stem, self.network.backbone.conv_stem.weight),
            torch.equal(head, self.network.head.linear.weight),
            self.optimizer.param_groups[-1]["lr"],
            self.optimizer.param_groups[-2]["lr"],
            set(sizes),
        ))  # fmt: skip

    stages = "train.stages=[{epochs: 1, trainable: head, lr: 0.01}, {epochs: 1}]"
    changes = (
        stages, "train.warmup_epochs=0", "train.layer_decay=0.9", "loss.kind=focal",
        "train.mixup=0.2", "train.cutmix=1", "train.sampler=balanced", "train.monitor=log_loss",
        "train.keep=best", "train.grad_checkpointing=true", "train.small_size=28",
        "train.small_epochs=1", "train.save_steps=1",
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(steps.Stepper, "step", watched)
        train([*tiny_run("staged", *changes), "--fold", "0"])
    assert [size for *_, size in seen] == [{28}] * 3 + [{32}] * 3
    resumed = [*tiny_run("staged_resumed", *changes), "--fold", "0"]
    interrupted_run(resumed, 2, monkeypatch)
    train(resumed)
    one, two = (at("oof", name, "fold0.csv") for name in ("staged", "staged_resumed"))
    assert one.read_bytes() == two.read_bytes()
    assert [stem for stem, *_ in seen] == [True] * 3 + [False] * 3
    assert not any(head for _, head, *_ in seen)
    assert [below / top for *_, top, below, _ in seen] == pytest.approx([0.9] * 6)
    assert seen[0][2] == pytest.approx(0.01) and seen[3][2] == pytest.approx(2e-3)
    assert (at("oof") / "staged/training_curves.png").stat().st_size > 1000


ROWS = np.arange(10, 50)
CLASSES = (ROWS >= 44).astype(int)  # 34 and 6 rows


def test_balanced_batches_have_the_classes_equally_often_and_share_out():
    shares_of = [list(TrainBatches(ROWS, 8, 4, 7, rank, 2, CLASSES)) for rank in (0, 1)]
    whole = list(TrainBatches(ROWS, 8, 8, 7, classes=CLASSES))
    for step, batch in enumerate(whole):
        assert sorted(shares_of[0][step] + shares_of[1][step]) == sorted(batch)
    drawn = [item for batch in whole for item in batch]
    assert sum(item[1] >= 44 for item in drawn) == len(drawn) / 2 == 20
    assert len(set(drawn)) == len(drawn), "a row that comes again is augmented anew"


def test_ranges_of_the_augmentation_are_those_of_the_config(monkeypatch):
    """System 001's +-15 degrees without shift or zoom."""
    from lesions.data import augmentation

    config, drawn, warp = load_config("ham10000/001/resnet50").augment, [], augmentation.warp_matrix
    monkeypatch.setattr(
        augmentation, "warp_matrix", lambda *given: drawn.append(given[1:4]) or warp(*given)
    )
    pipeline, image = augmentation.build_augmentation(config), np.full((32, 32, 3), 128, np.uint8)
    grey = [augmentation.augment(pipeline, image, seed)[16, 16, 0] for seed in range(200)]
    shifts, scales, degrees = zip(*drawn, strict=True)
    assert set(shifts) == {(0, 0)} and set(scales) == {(1, 1)}
    assert 14 < max(degrees) <= 15 and -15 <= min(degrees) < -14
    assert max(abs(np.array(grey) - 128.0)) <= 128 * 0.1 + 255 * 0.1 + 1


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image i is filled with i, so that a pixel says which image it is from."""
    number = torch.arange(6)
    image = number.view(6, 1, 1, 1).expand(6, 16, 16, 3).to(torch.uint8)
    return image, number.float().view(6, 1), number.float()


@pytest.mark.parametrize("mixup, cutmix", [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixing_is_a_function_of_the_seed_and_keeps_pixels_and_targets_together(mixup, cutmix):
    for seed in range(12):
        image, metadata, target = optim.mix_batch(batch(), mixup, cutmix, seed)
        again = optim.mix_batch(batch(), mixup, cutmix, seed)
        assert torch.equal(image, again[0])
        torch.testing.assert_close(image.mean((1, 2, 3)), target)
        torch.testing.assert_close(metadata[:, 0], target)
    assert not torch.equal(*(optim.mix_batch(batch(), 0.4, 0, seed)[0] for seed in (1, 2)))


def test_cutmix_cuts_and_mixup_blends():
    cut = torch.cat([optim.mix_batch(batch(), 0, 1.0, seed)[0] for seed in range(5)])
    assert torch.equal(cut, cut.round())
    assert any(len(image.unique()) == 2 for image in cut)
    blend = torch.cat([optim.mix_batch(batch(), 1.0, 0, seed)[0] for seed in range(5)])
    assert all(len(image.unique()) == 1 for image in blend)
    assert not torch.equal(blend, blend.round())
    untouched = batch()
    assert optim.mix_batch(untouched, 0, 0, 1) is untouched


def test_batch_statistics_over_processes_keep_names_activations_and_results():
    """torch's own conversion would drop the activation of timm's normalisation layers."""
    torch.manual_seed(0)
    plain = LesionClassifier(TINY, columns=2).eval()
    image, metadata = torch.randint(0, 256, (2, 32, 32, 3)), torch.randn(2, 2)
    expected, names = plain(image, metadata), list(plain.state_dict())
    converted = steps.convert_sync_batchnorm(plain).eval()
    assert list(converted.state_dict()) == names
    assert any(isinstance(module, nn.SyncBatchNorm) for module in converted.modules())
    torch.testing.assert_close(converted(image, metadata), expected)


def test_a_tracker_that_is_not_installed_is_said_and_none_is_imported(monkeypatch):
    before = {*sys.modules}
    monkeypatch.setattr("lesions.inference.accelerator.find_spec", lambda _: None)
    with pytest.raises(InputError, match="track"):
        build_accelerator("fp32", tracker="wandb")
    assert not {"wandb", "tensorboard"} & ({*sys.modules} - before)


def test_a_head_on_cached_features_predicts_as_the_network_it_is_saved_in(trained, monkeypatch):
    """Features are those of own weights, so that every fold reads the same file."""
    weights = trained / "fold0.safetensors"
    changes = ("train.frozen=true", f"model.pretrained={weights}", "train.precision=fp32")
    train([*tiny_run("frozen", *changes), "--fold", "0"])
    resumed = [*tiny_run("frozen_resumed", *changes), "--fold", "0"]
    interrupted_run(resumed, 4, monkeypatch)
    train(resumed)
    one, two = (at("oof", name, "fold0.csv") for name in ("frozen", "frozen_resumed"))
    assert one.read_bytes() == two.read_bytes()
    train([*tiny_run("frozen", *changes), "--fold", "1"])
    assert len([*at("input/prepared/demo/features/mobilenetv3_small_050_32").iterdir()]) == 1

    whole, header = load_model(at("oof/frozen/fold0.safetensors"))
    before = load_file(weights)
    assert all(torch.equal(before[f"backbone.{name}"], tensor)
               for name, tensor in whole.backbone.state_dict().items())  # fmt: skip
    config = Config.model_validate(header["config"])
    data = load_fold(config, 0)
    known, images = {"all": data.given["all"][None]}, data.images
    accelerator = build_accelerator("fp32")
    found = predict(whole, images, data.valid_rows, known, config.predict, accelerator, 4, "")
    written = pd.read_csv(one)
    np.testing.assert_allclose(found["all"][:, 0], written["prob"], atol=1e-5)
    with pytest.raises(InputError, match=r"train\.frozen trains a head .* mixup"):
        train([*tiny_run("frozen", *changes, "train.mixup=0.2"), "--fold", "0"])

"""The network: exact parameter counts, float32 head, images normalised inside."""

from pathlib import Path

import pytest
import timm
import torch
from formula import batch
from safetensors.torch import load_file, save_file
from torch import nn

from lesions.config import CbamConfig, ModelConfig, load_config
from lesions.data.metadata import COLUMNS
from lesions.data.tasks import build_task
from lesions.errors import InputError
from lesions.models.backbone import build_backbone
from lesions.models.classifier import LesionClassifier
from lesions.models.layers import Cbam, MetadataGate, attend, build_head, weigh_channels
from lesions.training.optim import set_trainable

SAVED = {".pth": torch.save, ".safetensors": save_file}
TINY = ModelConfig(backbone="mobilenetv3_small_050", pretrained=False)


def model_of(run: str) -> LesionClassifier:
    config = load_config(run, ["model.pretrained=false"])
    task = build_task(config.data.task or "melanoma")
    return LesionClassifier(config.model, len(COLUMNS[config.data.metadata]), len(task.classes))


@pytest.mark.parametrize("run, published", [
    ("system003/effnet_b1", 6_587_681),
    ("system003/effnet_b1_2020", 6_587_681),
    # Less its attention, which its optimiser never got; a batch norm of the features is ours.
    ("ham10000/004/efficientnet_b0", 5_618_564 - 820_481 + 2 * 1280),
])  # fmt: skip
def test_networks_of_earlier_systems_have_the_published_parameters(run, published):
    assert sum(p.numel() for p in model_of(run).parameters()) == published


@pytest.mark.parametrize("run", ["ham10000/002/effnet_b1_a5", "ham10000/002/resnet50_a5"])
def test_system_002_unfreezes_two_depths_the_high_level_first_at_the_higher_rate(run):
    train, model, learning = load_config(run).train, model_of(run), []
    for stage in train.stages:
        set_trainable(model, stage.trainable)
        learning.append(sum(p.numel() for p in model.parameters() if p.requires_grad))
    assert len(learning) == 3 and learning == sorted(set(learning))
    rates = [stage.lr or train.lr for stage in train.stages]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("fusion", ["concat", "gate"])
def test_without_metadata_there_is_no_metadata_branch(fusion):
    model = LesionClassifier(TINY.model_copy(update={"fusion": fusion}), columns=0).eval()
    assert model.metadata is None and model.gate is None
    assert model(*batch(size=32, count=4)).shape == (4, 1)


def test_the_head_runs_in_float32_under_autocast():
    model = LesionClassifier(TINY, columns=9).eval()
    images, _ = batch(size=32, count=4)
    with torch.autocast("cpu", torch.bfloat16):
        logit = model(images, torch.zeros(4, 9))
    assert logit.dtype == torch.float32
    assert len(set(logit.flatten().tolist())) == 4  # bfloat16 would make ties likely


@pytest.mark.parametrize("name, given, mean, std, channels_last", [
    (TINY.backbone, {"mean": (0.5,) * 3, "std": (0.25,) * 3}, 0.5, 0.25, True),
    ("resnest14d", {"mean": (0.5,) * 3, "std": (0.5,) * 3}, 0.5, 0.5, False),
    ("lesions_cnn_shallow", {}, 0, 1, True),
])  # fmt: skip
def test_images_reach_a_backbone_normalised_in_its_layout(name, given, mean, std, channels_last):
    config = ModelConfig(backbone=name, pretrained=False, pretrained_cfg=given)
    model, seen = LesionClassifier(config, columns=0).eval(), []
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images, metadata = batch(size=32, count=4)
    model(images, metadata)
    torch.testing.assert_close(seen[0], (images.permute(0, 3, 1, 2) / 255 - mean) / std)
    assert seen[0].is_contiguous(memory_format=torch.channels_last) == channels_last
    assert seen[0].is_contiguous() != channels_last


def test_dropout_samples_differ_in_training_and_are_gone_in_evaluation():
    head = LesionClassifier(TINY, columns=0).head
    features = torch.randn(8, head.linear.in_features)
    head.train()
    assert not torch.equal(head(features), head(features))
    head.eval()
    torch.testing.assert_close(head(features), head.linear(features))


def saved_weights(prefix: str = "", name: str = TINY.backbone, **more: torch.Tensor) -> dict:
    torch.manual_seed(1)
    network = timm.create_model(name, num_classes=9)
    return {f"{prefix}{key}": tensor for key, tensor in network.state_dict().items()} | more


def backbone_from(path: Path, name: str = TINY.backbone, **args: int) -> torch.nn.Module:
    return build_backbone(ModelConfig(backbone=name, pretrained=str(path), backbone_args=args))


@pytest.mark.parametrize("prefix, suffix", [
    ("", ".pth"), ("module.", ".safetensors"), ("model.", ".pth"), ("backbone.", ".safetensors"),
    ("encoder.", ".pth"), ("net.", ".pth"), ("enet.", ".pth"), ("module.model.", ".safetensors"),
])  # fmt: skip
def test_local_weights_load_under_the_names_of_trainers(prefix, suffix, tmp_path, capsys):
    path, saved = tmp_path / f"weights{suffix}", saved_weights(prefix)
    beside = {"meta.0.weight": torch.ones(2)} if prefix else {}  # another part of that trainer's
    SAVED[suffix](saved | beside, path)
    found = backbone_from(path).state_dict()
    assert all(torch.equal(tensor, saved[f"{prefix}{name}"]) for name, tensor in found.items())
    assert f"{len(found)} tensors" in capsys.readouterr().out


def test_lightnings_files_and_our_own_folds_are_weights_too(trained, tmp_path):
    lightning = {"state_dict": saved_weights("model."), "epoch": 3, "global_step": 10}
    torch.save(lightning, tmp_path / "last.ckpt")
    first = "conv_stem.weight"
    found = backbone_from(tmp_path / "last.ckpt").state_dict()[first]
    assert torch.equal(found, lightning["state_dict"][f"model.{first}"])
    own = trained / "fold0.safetensors"
    assert torch.equal(backbone_from(own).state_dict()[first], load_file(own)[f"backbone.{first}"])


def test_position_embeddings_of_another_image_size_are_fitted_as_timm_does(tmp_path):
    name, saved = "vit_tiny_patch16_224", saved_weights(name="vit_tiny_patch16_224")
    torch.save(saved, tmp_path / "vit.pth")
    found = backbone_from(tmp_path / "vit.pth", name, img_size=32).pos_embed
    assert found.shape == (1, 5, 192) and saved["pos_embed"].shape == (1, 197, 192)
    assert torch.equal(found[:, 0], saved["pos_embed"][:, 0])  # of the class token


def faults() -> dict[str, tuple[object, str]]:
    right = saved_weights()
    first = "conv_stem.weight"
    return {
        "another network": (saved_weights(name="resnet10t"), r"not the weights of this network"),
        "one stray tensor": ({first: right[first]}, r"1 of its 242 tensors.*missing: bn1\.weight"),
        "a tensor short": ({k: v for k, v in right.items() if k != first}, rf"1 missing: {first}"),
        "a layer too many": (right | {"blocks.9.w": torch.ones(1)}, r"not of this network: blocks"),
        "another shape": (right | {first: torch.ones(4)}, rf"another shape: {first} \(4,\), not"),
        "NaN": (right | {first: right[first] * torch.nan}, rf"NaN or infinite numbers in {first}"),
        "no tensors": ([1, 2], r"holds list"),
        "code": ({"model": Path("x")}, r"save the network's state_dict\(\) alone"),
    }


@pytest.mark.parametrize("fault", faults())
def test_weights_that_do_not_fit_are_refused_with_examples(fault, tmp_path):
    content, message = faults()[fault]
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=message):
        backbone_from(tmp_path / "weights.pth")


@pytest.mark.parametrize("suffix", SAVED)
def test_cut_or_foreign_files_are_no_weights(suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    with pytest.raises(InputError, match="no such weights file"):
        backbone_from(path)
    SAVED[suffix](saved_weights(), path)
    content = path.read_bytes()
    for broken in (content[: len(content) // 2], b"image_name,target\n" * 9, b""):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"weights\..*(damaged|no weights file)"):
            backbone_from(path)


def test_missing_weights_are_told_with_three_ways_out():
    config = ModelConfig(backbone="tf_efficientnet_b1.ns_jft_in1k")
    with pytest.raises(InputError, match="--pretrained FILE(.|\n)*--pretrained none(.|\n)*HF_HOME"):
        LesionClassifier(config, columns=0)


@pytest.mark.parametrize("tag", ["no_such_net", "tf_efficientnet_b1.ns"])
@pytest.mark.parametrize("pretrained", [True, False])
def test_an_unknown_backbone_or_keyword_is_named(tag, pretrained):
    with pytest.raises(InputError, match=f"model.backbone {tag}"):
        build_backbone(ModelConfig(backbone=tag, pretrained=pretrained))
    with pytest.raises(InputError, match="mobilenetv3_small_050.*no_such_word"):
        build_backbone(TINY.model_copy(update={"backbone_args": {"no_such_word": 1}}))


def test_the_gate_by_hand_and_its_noise_in_training_alone():
    """x (1 + alpha tanh(W2 silu(W1 metadata)))."""
    gate, metadata, hidden = MetadataGate(3, 5), torch.randn(4, 3), []
    assert gate.hidden.out_features == 64 and gate.alpha.item() == 1
    with torch.no_grad():
        gate.alpha.fill_(0.5)
    expected = metadata @ gate.hidden.weight.T + gate.hidden.bias
    expected = (expected * expected.sigmoid()) @ gate.output.weight.T + gate.output.bias
    gate.output.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]))
    torch.testing.assert_close(gate.eval()(metadata), 1 + 0.5 * torch.tanh(expected))
    gate.train()(metadata.repeat(1000, 1))
    noise = hidden[1] - hidden[0].repeat(1000, 1)
    assert noise.std().item() == pytest.approx(0.05, rel=0.02)


@pytest.mark.parametrize("part", ["gate", "cbam"])
def test_gate_and_cbam_do_the_same_in_every_shape_of_a_map(part):
    x, factor, cbam = torch.randn(2, 6, 4, 4), torch.randn(2, 6), Cbam(6, reduction=2, kernel=3)

    def weighed(feature_map: torch.Tensor, prefix: int = 0) -> torch.Tensor:
        if part == "gate":
            return weigh_channels(feature_map, factor)
        return attend(cbam, feature_map, 6, prefix)

    expected = x * factor[:, :, None, None] if part == "gate" else cbam(x)
    torch.testing.assert_close(weighed(x), expected)
    torch.testing.assert_close(weighed(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), expected)
    tokens = torch.cat([torch.randn(2, 1, 6), x.flatten(2).transpose(1, 2)], dim=1)
    found = weighed(tokens, 1)
    torch.testing.assert_close(found[:, 1:].transpose(1, 2), expected.flatten(2))
    kept = tokens[:, :1] * (factor[:, None] if part == "gate" else 1)
    torch.testing.assert_close(found[:, :1], kept)


def test_cbam_by_hand():
    """Channels from the mean and maximum over places, then places from those over channels."""
    cbam, x = Cbam(8, reduction=2, kernel=3), torch.randn(2, 8, 4, 4)
    first, second = (getattr(cbam[0], name).weight[:, :, 0, 0] for name in ("fc1", "fc2"))
    assert first.shape == (4, 8) and cbam[0].fc1.bias is None

    def shared(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.silu(values @ first.T) @ second.T

    weight = (shared(x.mean((2, 3))) + shared(x.amax((2, 3)))).sigmoid()
    weighed = x * weight[:, :, None, None]
    planes = torch.stack([weighed.mean(1), weighed.amax(1)], dim=1)
    places = torch.nn.functional.conv2d(planes, cbam[1].conv.weight, padding=1).sigmoid()
    torch.testing.assert_close(cbam(x), weighed * places)
    assert len(Cbam(8, reduction=16, kernel=0)) == 1  # channels alone
    with pytest.raises(ValueError, match="must be odd, or 0"):
        CbamConfig(kernel=4)


def test_the_funnel_halves_its_dropout_from_layer_to_layer():
    funnel = build_head(TINY.model_copy(update={"head": "funnel"}), 20, 7)
    first, *blocks, last = funnel
    kinds = [nn.Linear, nn.SiLU, nn.BatchNorm1d, nn.Dropout] * 3
    assert [type(layer) for layer in blocks] == kinds and first.num_features == 20
    assert [layer.p for layer in blocks[3::4]] == [0.5, 0.25, 0.125]
    assert [layer.out_features for layer in [*blocks[::4], last]] == [512, 256, 128, 7]
    assert [layer.num_features for layer in blocks[2::4]] == [512, 256, 128]


def test_cbam_on_a_class_token_and_images_of_a_wrong_size_are_told_with_what_to_set():
    size = {"img_size": 32}
    vit = ModelConfig(backbone="vit_tiny_patch16_224", pretrained=False, backbone_args=size)
    with pytest.raises(InputError, match="global_pool: avg"):
        LesionClassifier(vit.model_copy(update={"cbam": CbamConfig()}), columns=0)
    with pytest.raises(InputError, match=r"data\.image_size=32.*img_size: 48"):
        LesionClassifier(vit, columns=0)(*batch(size=48))

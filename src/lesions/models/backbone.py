"""Any timm backbone, ours of cnn.py too, with weights from the hub, from a local file, or none."""

import os
import pickle
import sys
import threading
import urllib.request
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError
from torch import Tensor, nn

import lesions.models.cnn  # noqa: F401 - registers our own networks with timm
from lesions.config import ModelConfig
from lesions.errors import InputError, listed
from lesions.paths import at, shown

# What trainers put before a network's own names, and the keys under which they file its tensors.
PREFIXES = ("module.", "model.", "backbone.", "encoder.", "net.", "enet.", "_orig_mod.")
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
CLASSIFIERS = ("classifier", "fc", "head", "last_linear", "myfc")


def build_backbone(config: ModelConfig, pretrained: bool = True) -> Any:
    """A timm network without its classifier: (B, 3, S, S) in, pooled features (B, F) out.

    `pretrained` false leaves random weights, for a checkpoint that brings its own. Mean and std
    are in its `pretrained_cfg`, F in `head_hidden_size`, the channels of its map in `num_features`.
    """
    from_hub = pretrained and config.pretrained is True
    if from_hub:
        _require_weights(config.backbone)
    try:
        backbone = timm.create_model(
            config.backbone,
            pretrained=from_hub,
            pretrained_cfg_overlay=config.pretrained_cfg,
            num_classes=0,
            **config.backbone_args,
        )
    except (RuntimeError, TypeError) as error:
        # timm's own word for an unknown name, a wrong tag, or a wrong keyword
        raise InputError(f"model.backbone {config.backbone}: {error}") from error
    if pretrained and isinstance(config.pretrained, str):
        count = load_weights(backbone, at(config.pretrained))
        print(f"{config.backbone}: {count:,} tensors from {config.pretrained}")
    return backbone


def memory_format(backbone: str) -> torch.memory_format:
    """The layout in which the network of that timm tag is fastest.

    By timm's own table ResNeSt trains 2.65 times slower in channels_last; EfficientNet gains 1.3.
    """
    return torch.contiguous_format if "resnest" in backbone else torch.channels_last


def load_weights(module: nn.Module, path: Path) -> int:
    """Fill every tensor of `module` from a .safetensors or torch file; the number of tensors.

    Names may have a prefix that trainers add (PREFIXES), and a backbone's file may have a
    classifier; else the file has to hold the module's tensors and no others, all of them finite.
    InputError with examples if not.
    """
    wanted, held = module.state_dict(), _read_tensors(path)
    inside = [
        {name.removeprefix(prefix): held[name] for name in held if name.startswith(prefix)}
        for prefix in sorted({"", *map(_prefix, held)})
    ]
    found = max(inside, key=lambda tensors: len(tensors.keys() & wanted.keys()))
    matched = len(found.keys() & wanted.keys())
    problems = _problems(module, found)
    # timm's own way from published files to its networks: older names, position embeddings of
    # another image size
    adapt = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if problems and adapt and 2 * matched > len(wanted):
        found = adapt(dict(found), module)
        problems = _problems(module, found)
    if problems:
        raise InputError(
            f"{shown(path)}: not the weights of this network: {matched:,} of its {len(wanted):,}"
            f" tensors have their name in it; {'; '.join(problems)}"
        )
    found = {name: tensor for name, tensor in found.items() if name in wanted}
    broken = [name for name, tensor in found.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise InputError(f"{shown(path)}: NaN or infinite numbers in {listed(broken)}")
    module.load_state_dict(found)
    return len(found)


def require_map(backbone: Any, config: ModelConfig) -> None:
    """InputError for a ViT that pools only its class token: cbam weighs its patches in vain."""
    if getattr(backbone, "global_pool", None) == "token":
        raise InputError(
            f"model.cbam: {config.backbone} pools its class token, not the patches that cbam"
            " weighs: set model.backbone_args={global_pool: avg, fc_norm: false}"
        )


def require_size(backbone: Any, size: int) -> None:
    """InputError for images of another size than the backbone's position embeddings are for."""
    patches = getattr(backbone, "patch_embed", None)
    expected = getattr(patches, "img_size", None)
    if expected and getattr(patches, "strict_img_size", False) and expected != (size, size):
        raise InputError(
            f"the backbone takes images of {expected[0]} pixels, data.image_size is {size}: set"
            f" data.image_size={expected[0]} or model.backbone_args={{img_size: {size}}}"
        )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of the file by its name in it; a torch file is read without running its code."""
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{shown(path)}: no such weights file") from None
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{shown(path)}: no weights file, or one with more than tensors in it, whose code is"
            " not run: save the network's state_dict() alone"
        ) from error
    except (SafetensorError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{shown(path)}: damaged, or no weights file: {error}") from error
    while isinstance(content, Mapping):
        inner = next(
            (content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None
        )
        if inner is None:
            return {str(key): item for key, item in content.items() if isinstance(item, Tensor)}
        content = inner
    raise InputError(f"{shown(path)}: holds {type(content).__name__}, no tensors by name")


def _prefix(name: str) -> str:
    """The known prefixes that the name begins with."""
    rest = name
    while known := next((prefix for prefix in PREFIXES if rest.startswith(prefix)), None):
        rest = rest.removeprefix(known)
    return name.removesuffix(rest)


def _problems(module: nn.Module, found: Mapping[str, Tensor]) -> list[str]:
    """What keeps these tensors from being the module's, in words."""
    wanted = module.state_dict()
    config = getattr(module, "pretrained_cfg", None)  # a backbone: its file may have a classifier
    own = config["classifier"] if config else ()
    classifiers = {*CLASSIFIERS, *([own] if isinstance(own, str) else own or ())} if config else ()
    extra = [
        name for name in found
        if name not in wanted and not any(name.startswith(f"{part}.") for part in classifiers)
    ]  # fmt: skip
    missing = [n for n in wanted if n not in found and not n.endswith("num_batches_tracked")]
    shapes = [
        f"{name} {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}"
        for name, tensor in found.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    named = {"missing": missing, "not of this network": extra, "of another shape": shapes}
    return [f"{len(names):,} {what}: {listed(names, 3)}" for what, names in named.items() if names]


def _require_weights(tag: str) -> None:
    """InputError within five seconds if timm's weights are neither cached nor to be had.

    The hub's own client tries for a minute before it says so.
    """
    try:
        weights = timm.models.get_pretrained_cfg(tag)
    except RuntimeError as error:
        raise InputError(f"model.backbone {tag}: {error}") from error
    if weights is None or not weights.hf_hub_id:
        raise InputError(
            f"model.backbone {tag}: timm has no weights of that tag: set model.pretrained=false"
            " for random ones"
        )
    hub_id = weights.hf_hub_id.rstrip("/")
    hub_id = f"{hub_id}/{tag}" if hub_id == "timm" else hub_id
    names = ["model.safetensors", "pytorch_model.bin"]
    if any(isinstance(try_to_load_from_cache(hub_id, name), str) for name in names):
        return
    reached = threading.Event()

    def knock() -> None:
        with suppress(OSError):
            urllib.request.urlopen(constants.ENDPOINT, timeout=3).close()
            reached.set()

    if os.environ.get("HF_HUB_OFFLINE") != "1":
        knocking = threading.Thread(target=knock, daemon=True)
        knocking.start()
        knocking.join(4)
    if not reached.is_set():
        raise InputError(
            f"the weights of {tag} are not cached and the hub does not answer. Three ways out:\n"
            "  --pretrained FILE   weights saved from timm (.safetensors or .pth)\n"
            "  --pretrained none   start from random weights\n"
            "  HF_HOME=FOLDER      a cache filled on a machine with a network"
        )

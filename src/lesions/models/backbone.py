"""Any timm backbone, ours of cnn.py too, with weights from the hub, from a local file, or none."""

import pickle
import re
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
PREFIXES = re.compile(r"^((module|model|backbone|encoder|net|enet|_orig_mod)\.)*")
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
CLASSIFIERS = ("classifier", "fc", "head", "last_linear", "myfc")


def build_backbone(config: ModelConfig, pretrained: bool = True) -> Any:
    """A timm network without its classifier: (B, 3, S, S) in, pooled features (B, F) out.

    `pretrained` false leaves random weights. F is its `head_hidden_size`.
    """
    from_hub = pretrained and config.pretrained is True
    try:
        if from_hub:
            _require_weights(config.backbone)
        backbone = timm.create_model(
            config.backbone,
            pretrained=from_hub,
            pretrained_cfg_overlay=config.pretrained_cfg,
            num_classes=0,
            **config.backbone_args,
        )
    except (RuntimeError, TypeError) as error:
        # timm's message for an unknown name, a wrong tag, or a wrong keyword
        raise InputError(f"model.backbone {config.backbone}: {error}") from error
    if pretrained and isinstance(config.pretrained, str):
        count = load_weights(backbone, at(config.pretrained))
        print(f"{config.backbone}: {count:,} tensors from {config.pretrained}")
    return backbone


def memory_format(backbone: str) -> torch.memory_format:
    """The fastest layout of that timm tag: by timm's table channels_last slows ResNeSt down."""
    return torch.contiguous_format if "resnest" in backbone else torch.channels_last


def load_weights(module: nn.Module, path: Path) -> int:
    """Fill every tensor of `module` from a .safetensors or torch file; the number of tensors.

    Names may have a prefix that trainers add, and a backbone's file may have a classifier. If any
    other tensor is missing, not the module's, or not finite, InputError names examples.
    """
    wanted, held = module.state_dict(), _read_tensors(path)
    prefixes = sorted({"", *(name.removesuffix(PREFIXES.sub("", name)) for name in held)})
    inside = [
        {name.removeprefix(prefix): held[name] for name in held if name.startswith(prefix)}
        for prefix in prefixes
    ]
    found = max(inside, key=lambda tensors: len(tensors.keys() & wanted.keys()))
    matched = len(found.keys() & wanted.keys())
    problems = _problems(module, found)
    # timm's conversion of published files: older names, position embeddings of another image size
    adapt = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if problems and adapt and 2 * matched > len(wanted):
        found = adapt(dict(found), module)
        problems = _problems(module, found)
    if problems:
        raise InputError(
            f"{shown(path)}: not the weights of this network: {matched:,} of its {len(wanted):,}"
            f" tensors have their name in it; {'; '.join(problems)}"
        )
    broken = [name for name in found if name in wanted and not torch.isfinite(found[name]).all()]
    if broken:
        raise InputError(f"{shown(path)}: NaN or infinite numbers in {listed(broken)}")
    module.load_state_dict(found, strict=False)
    return len(found.keys() & wanted.keys())


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
        inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            return {str(key): item for key, item in content.items() if isinstance(item, Tensor)}
        content = inner[0]
    raise InputError(f"{shown(path)}: holds {type(content).__name__}, no tensors by name")


def _problems(module: nn.Module, found: Mapping[str, Tensor]) -> list[str]:
    """What keeps these tensors from being the module's; a backbone's may come with a classifier."""
    wanted = module.state_dict()
    config = getattr(module, "pretrained_cfg", None)
    own = (config or {}).get("classifier") or ()
    classifiers = (*CLASSIFIERS, *([own] if isinstance(own, str) else own)) if config else ()
    allowed = tuple(f"{part}." for part in classifiers)
    named = {
        "missing": [n for n in wanted if n not in found and not n.endswith("num_batches_tracked")],
        "not of this network": [n for n in found if n not in wanted and not n.startswith(allowed)],
        "of another shape": [
            f"{n} {tuple(tensor.shape)}, not {tuple(wanted[n].shape)}"
            for n, tensor in found.items()
            if n in wanted and tensor.shape != wanted[n].shape
        ],
    }
    return [f"{len(names):,} {what}: {listed(names, 3)}" for what, names in named.items() if names]


def _require_weights(tag: str) -> None:
    """InputError within five seconds if the tag's weights are neither cached nor on the hub."""
    weights = timm.models.get_pretrained_cfg(tag)
    if weights is None or not weights.hf_hub_id:
        raise InputError(
            f"model.backbone {tag}: timm has no weights of that tag: set model.pretrained=false"
            " for random ones"
        )
    hub_id = f"timm/{tag}" if weights.hf_hub_id == "timm/" else weights.hf_hub_id
    for name in ("model.safetensors", "pytorch_model.bin"):
        if isinstance(try_to_load_from_cache(hub_id, name), str):
            return
    reached = threading.Event()

    def knock() -> None:
        with suppress(OSError):
            urllib.request.urlopen(constants.ENDPOINT, timeout=3).close()
            reached.set()

    if not constants.HF_HUB_OFFLINE:
        # In a thread, as a name server has no timeout; the hub's own client tries for a minute.
        threading.Thread(target=knock, daemon=True).start()
        reached.wait(4)
    if not reached.is_set():
        raise InputError(
            f"the weights of {tag} are not cached and the hub does not answer. Three ways out:\n"
            "  --pretrained FILE   weights saved from timm (.safetensors or .pth)\n"
            "  --pretrained none   start from random weights\n"
            "  HF_HOME=FOLDER      a cache filled on a machine with a network"
        )

"""Any timm backbone, ours of cnn.py too, with weights from a hub, a local file, or none."""

import os
import threading
import urllib.request
from typing import Any

import timm
from huggingface_hub import constants, try_to_load_from_cache

import lesions.models.cnn  # noqa: F401 - timm learns the names of our own networks
from lesions.config import ModelConfig
from lesions.errors import InputError
from lesions.paths import at


def build_backbone(config: ModelConfig, load_weights: bool = True) -> Any:
    """A timm network without its classifier: (B, 3, S, S) in, pooled features (B, F) out.

    `load_weights` false leaves random weights, for a checkpoint that brings its own. Mean and std
    stand in its `pretrained_cfg`, F in `head_hidden_size`, the channels of its map in
    `num_features`.
    """
    overlay = dict(config.pretrained_cfg)
    pretrained = bool(config.pretrained) and load_weights
    if isinstance(config.pretrained, str) and load_weights:
        if not (at() / config.pretrained).is_file():
            raise InputError(f"{config.pretrained}: no such weights file (model.pretrained)")
        overlay["file"] = str(at() / config.pretrained)
    elif pretrained:
        _require_weights(config.backbone)
    try:
        return timm.create_model(
            config.backbone,
            pretrained=pretrained,
            pretrained_cfg_overlay=overlay,
            num_classes=0,
            **config.backbone_args,
        )
    except (RuntimeError, TypeError) as error:
        # timm's own word for an unknown name, a wrong tag or keyword, or a file of another network
        raise InputError(f"model.backbone {config.backbone}: {error}") from error


def require_map(backbone: Any, config: ModelConfig) -> None:
    """InputError for a ViT that pools its class token alone: its patches can be weighed in vain."""
    if getattr(backbone, "global_pool", None) == "token":
        raise InputError(
            f"model.cbam: {config.backbone} pools its class token, not the patches that cbam"
            " weighs: set model.backbone_args={global_pool: avg, fc_norm: false}"
        )


def require_size(backbone: Any, size: int) -> None:
    """InputError for images of another size than the one that the backbone's positions are for."""
    patches = getattr(backbone, "patch_embed", None)
    expected = getattr(patches, "img_size", None)
    if expected and getattr(patches, "strict_img_size", False) and expected != (size, size):
        raise InputError(
            f"the backbone takes images of {expected[0]} pixels, data.image_size is {size}: set"
            f" data.image_size={expected[0]} or model.backbone_args={{img_size: {size}}}"
        )


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
        try:
            urllib.request.urlopen(constants.ENDPOINT, timeout=3).close()
            reached.set()
        except OSError:
            pass  # no answer is the answer

    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    if not offline:
        knocking = threading.Thread(target=knock, daemon=True)
        knocking.start()
        knocking.join(4)
    if not reached.is_set():
        raise InputError(
            f"the weights of {tag} are not here and the hub does not answer. Three ways out:\n"
            "  --pretrained FILE   weights saved from timm (.safetensors or .pth)\n"
            "  --pretrained none   start from random weights\n"
            "  HF_HOME=FOLDER      a cache filled on a machine with a network"
        )

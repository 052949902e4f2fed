"""What a config is: a frozen pydantic model, read from YAML with `extends` and --set changes."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from lesions.errors import InputError, listed
from lesions.paths import shown


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


AnyConfig = TypeVar("AnyConfig", bound=Section)


def dump(config: Section) -> str:
    """The whole config as YAML, defaults included."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False)


def config_hash(config: Section) -> str:
    """Twelve hex digits of the resolved config."""
    canonical = json.dumps(config.model_dump(), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Lines "key: old -> new" for every leaf in which two nested dicts differ."""
    lines = []
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a} -> {b}")
    return lines


def load(kind: type[AnyConfig], path: Path, changes: Sequence[str]) -> AnyConfig:
    """The config of that kind at `path`; InputError with every wrong key at once."""
    values = _read(path)
    if "extends" in values:
        base = _read(path.parent / values.pop("extends"))
        if "extends" in base:
            raise InputError(f"{shown(path)}: extends a file that itself extends: one level only")
        values = _merge(base, values)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise InputError(f"--set {change}: expected key=value, such as train.lr=1e-4")
        nested: Any = yaml.safe_load(text)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        values = _merge(values, nested)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{shown(path)}: {'.'.join(map(str, item['loc'])) or 'config'}: {item['msg']}"
            for item in error.errors()
        ]
        raise InputError("\n".join(problems)) from error


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        near = sorted(shown(file) for file in path.parent.glob("*.yaml"))
        hint = f"; there is {listed(near)}" if near else ""
        raise InputError(f"{shown(path)}: no such config{hint}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{shown(path)}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{shown(path)}: expected keys with values")
    return values


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged

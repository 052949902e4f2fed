"""What `--run` means, in every script: a run's name, its folder, one fold's weights, or a blend."""

import hashlib
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lesions.errors import InputError, listed, nearest
from lesions.files import read_json, sha256, write_bytes
from lesions.paths import at, shipped, shown

SUMS = "SHA256SUMS"  # of the files of a released run


@dataclass(frozen=True)
class RunFiles:
    """Where a run's files lie.

    `name` is the run's path below oof/, or its folder's name elsewhere. `folds` are the numbers
    asked for, None for all. `blend` is the blend.json that was named; `folder` is then its folder.
    """

    name: str
    folder: Path
    folds: tuple[int, ...] | None = None
    blend: Path | None = None

    def file(self, fold: int, suffix: str) -> Path:
        """The path of a fold's file: suffix .csv, .json or .safetensors."""
        return self.folder / f"fold{fold}{suffix}"

    def changed(self, fold: int, suffix: str) -> bool:
        """Whether a fold's file is not the one that fold<k>.json knows; older ones know none."""
        known, kind = self.hashes(fold), suffix.removeprefix(".")
        return kind in known and sha256(self.file(fold, suffix)) != known[kind]

    def hashes(self, fold: int) -> dict[str, str]:
        """The SHA-256 of the fold's files, by kind, that its fold<k>.json knows."""
        facts = self.file(fold, ".json")
        known = read_json(facts, ("task",)).get("sha256", {}) if facts.is_file() else {}
        if not isinstance(known, dict):
            raise InputError(f"{shown(facts)}: sha256 is damaged: copy it again, or train again")
        return known

    def numbers(self, suffix: str) -> list[int]:
        """The folds that have a file of that suffix, in order, of those asked for."""
        found = (path.stem.removeprefix("fold") for path in self.folder.glob(f"fold*{suffix}"))
        there = sorted(int(number) for number in found if number.isdecimal())
        return [fold for fold in there if self.folds is None or fold in self.folds]


def find_run(
    spec: str | Path | None, takes: Collection[str] = ("run", "weights", "blend")
) -> RunFiles:
    """The files that `spec` means: effnet_b1, oof/effnet_b1, a folder, a weights file, blend.json.

    Also a run in models/, by its name, and the zip of one; None is the one that comes with the
    code. `takes` says which kinds the caller has an answer for. InputError, with the nearest names,
    if there is no such run, or if it is of another kind.
    """
    text = str(spec or in_the_box())
    places = [Path(text), at("oof", text), at(text), at("submissions", text), at("models", text)]
    for path in [*places, shipped("models") / text]:
        if path.is_file() and path.suffix == ".zip":
            path = _unpacked(path)
        if path.is_dir() and (any(path.glob("fold*.*")) or (path / "config.yaml").is_file()):
            kind, found = "run", RunFiles(_name(path), path)
        elif path.is_file() and path.suffix == ".safetensors":
            number = path.stem.removeprefix("fold")
            if not number.isdecimal():
                raise InputError(f"{shown(path)}: a fold's weights are called fold<k>.safetensors")
            kind, found = "weights", RunFiles(_name(path.parent), path.parent, (int(number),))
        elif path.is_file() and path.suffix == ".json":
            kind, found = "blend", RunFiles(path.stem, path.parent, None, path)
        else:
            continue
        if kind not in takes:
            kinds = {"run": "a run", "weights": "one fold's weights", "blend": "a blend"}
            wanted = " or ".join(kinds[name] for name in kinds if name in takes)
            raise InputError(f"{text} is {kinds[kind]}; this takes {wanted}")
        return found
    known = sorted({_name(path.parent) for name in ("oof", "models")
                    for path in at(name).rglob("fold*.*")})  # fmt: skip
    hint = nearest(text.removeprefix("oof/"), known)
    raise InputError(
        f"{text}: no such run{hint}; runs here: {listed(known, 12) or 'none'}; train one:"
        f" accelerate launch --quiet scripts/train.py --config configs/{text}.yaml --fold 0"
    )


def find_runs() -> list[RunFiles]:
    """Every run below oof/ of which at least one fold is done."""
    root = at("oof")
    done = {path.parent for path in root.rglob("fold*.csv") if "state" not in path.parts}
    return [RunFiles(folder.relative_to(root).as_posix(), folder) for folder in sorted(done)]


def in_the_box() -> Path:
    """The trained run that comes with the code; InputError if there is none."""
    found = sorted(path.parent for path in shipped("models").glob("*/fold*.safetensors"))
    if not found:
        raise InputError("--run: name a run: none comes with this code (models/ has no weights)")
    return found[0]


def run_folder(name: str) -> Path:
    """oof/<name>, where a run writes; InputError for a name that leads elsewhere."""
    folder, oof = at("oof", name), at("oof")
    inside = Path(name).parts
    if not inside or Path(name).is_absolute() or set(inside) & {".", ".."} or folder == oof:
        raise InputError(f"--name '{name}': give a name below oof/, such as quick or tests/quick")
    return folder


def _name(folder: Path) -> str:
    folder, oof = folder.resolve(), at("oof")
    inside = folder.is_relative_to(oof) and folder != oof
    return folder.relative_to(oof).as_posix() if inside else folder.name


def _unpacked(path: Path) -> Path:
    """The folder below oof/released that holds the files of a release's zip, checked."""
    folder = at("oof/released", f"{path.stem}-{sha256(path)[:8]}")
    try:
        with zipfile.ZipFile(path) as archive:
            sums = archive.read(SUMS).decode().splitlines()
            known = {name: digest for digest, name in (line.split() for line in sums)}
            if not all(name == Path(name).name and not name.startswith(".") for name in known):
                raise ValueError("names with folders")
            for name, digest in known.items() if not (folder / SUMS).is_file() else ():
                content = archive.read(name)
                if hashlib.sha256(content).hexdigest() != digest:
                    raise InputError(f"{shown(path)}: {name} is damaged: download it again")
                write_bytes(folder / name, content)
            write_bytes(folder / SUMS, archive.read(SUMS))
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, zlib.error) as error:
        raise InputError(f"{shown(path)}: no released run, or damaged: {error}") from error
    return folder

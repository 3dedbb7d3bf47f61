"""Weights files: safetensors with the configuration as metadata, network weights in half precision or less.

Tensor names: ``edge.<k>.…`` belongs to base station k (encoder, covariance, quantiser steps), ``edge.all.…`` to every
base station without a tensor of that name of its own, ``cloud.…`` to the cloud, ``rate.<k>.…`` (a transform) to base
station k and to the cloud, ``rate.all.…`` to all of them. Covariances and steps stay in single precision, since both
ends must agree on them bit for bit.

A large matrix may be packed (`Packed`): its tensor then holds codes of B bit, ``NAME.scale`` one factor per row, and
the metadata give B and the shape. A code times its factor is exact in single precision, so that every machine reads the
same weights. Files without packed matrices have format 1, others format 3, in which the codes, an octet each, are
compressed by zlib with Huffman codes alone, which saves about a tenth. In format 2, which is read but no longer
written, they are packed at B bit.

A file may build on another one beside it: ``base`` in its configuration gives that file's name and digest, and its own
configuration and tensors come before the other's (`built_on`).

Weights above a size limit are written in shards: ``NAME-00001-of-00003.safetensors`` and so on. The tensors of a base
station are never split. Every shard holds the configuration; any shard's name, or ``NAME.safetensors``, refers to all.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fronthaul.codec.bitstream import unpack
from fronthaul.documents import parse_json
from fronthaul.errors import LocalError
from fronthaul.files import whole_file
from fronthaul.message.messages import Payload
from fronthaul.payload.choice import PayloadChoice
from sim.errors import UserError
from sim.world.made_for import made_for_shipped
from sim.world.scenario import ClockErrors
from sim.world.store import ASSET_FOLDER, CHECKPOINT_FOLDER

_FORMATS = ("cofix-weights-1", "cofix-weights-2", "cofix-weights-3")
LIMIT_BYTES = 19_000_000
"""Maximum size of a shard [B], well below the file size limits of code hosts."""
MOST_DIMENSION = 8192
"""Maximum of a number in a configuration that no dimension of a tensor reaches."""
_SCALE = ".scale"  # after the name of a packed matrix
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
EXACT = re.compile(
    r"(?:^|\.)(?:anchor|covariance|step|gain_[^.]+|centre|extent|path_loss|scale|posterior|orientation|worth)"
    r"(?:\.|$)"
)
"""Names of tensors that are stored unchanged, by whole words between dots."""
_WIDE = re.compile(r"(?:^|\.)network\.(?:mean|deviation)$")
"""Names of tensors whose values exceed the range of half precision: they are stored in bfloat16."""


@dataclass(frozen=True)
class Packed:
    """A quantised matrix: `code` (R, C) int8 times `scale` (R,) float32, whose values are exact in bfloat16.

    `bits`: size of a code, 2..8 [bit]. `shape`: shape of the tensor, whose elements in C order are R rows of C.
    """

    code: Tensor
    scale: Tensor
    bits: int
    shape: tuple[int, ...]

    def tensor(self) -> Tensor:
        """Return the dequantised tensor, float32 of shape `shape`."""
        return (self.code.float() * self.scale[:, None]).reshape(self.shape)

    def stored(self) -> tuple[Tensor, Tensor]:
        """Return the codes as compressed octets, and the scales in bfloat16."""
        index = (self.code.numpy().astype(np.int16) + (1 << (self.bits - 1))).astype(np.uint8)
        squeeze = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
        octets = np.frombuffer(squeeze.compress(index.tobytes()) + squeeze.flush(), np.uint8)
        return torch.from_numpy(octets.copy()), self.scale.bfloat16()

    @classmethod
    def of_stored(cls, octets: Tensor, scale: Tensor, bits: int, shape: Sequence[int], form: str) -> Packed:
        """Undo `stored`; `form` is the format of the file.

        Raises:
            ValueError: the sizes do not match, or the octets are damaged.
        """
        count, rows = math.prod(shape), max(len(scale), 1)
        wrong = ValueError(f"{octets.numel()} bytes do not hold {list(shape)} codes of {bits} bit")
        if not (2 <= bits <= 8 and count % rows == 0):
            raise wrong
        data = octets.numpy().tobytes()
        if form == _FORMATS[1]:
            index = unpack(Payload(data, count * bits), bits, count)
        else:
            expand = zlib.decompressobj()
            try:
                index = np.frombuffer(expand.decompress(data, count + 1), np.uint8)
            except zlib.error as error:
                raise wrong from error
            if index.size != count or not expand.eof or expand.unused_data or int(index.max(initial=0)) >> bits:
                raise wrong
        code = (index.astype(np.int16) - (1 << (bits - 1))).astype(np.int8).reshape(rows, -1)
        return cls(torch.from_numpy(code), scale.float(), bits, tuple(shape))


@dataclass(frozen=True)
class Weights:
    """A scheme's configuration and tensors, and the `digest` of their file."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    digest: str = ""

    @property
    def made_for(self) -> dict[str, Any]:
        """What they were trained for, see `sim.world.made_for`; what can be told of it in files without it."""
        config = self.config
        if isinstance(stored := config.get("made_for"), dict):
            return stored
        parts = made_for_shipped(config.get("scenario"))
        shape = [config.get(name) for name in ("slots", "antennas", "tones")]
        if None not in shape and shape != parts.get("shape"):  # a variant of that scenario
            parts = {"shape": shape}
        record = config.get("record")
        clock = record.get("clock") if isinstance(record, Mapping) else None
        return parts | ({"clock": {**asdict(ClockErrors()), **clock}} if isinstance(clock, Mapping) else {})

    def edge(self, bs: int) -> dict[str, Tensor]:
        """Return the tensors of base station `bs`, prefix removed, with its row of the path-loss table, if any.

        They include the tensors shared by all base stations, unless `bs` has its own of the same name.
        """
        share = self._share("edge.all.") | self._share(f"edge.{bs}.")
        for owner in ("all", bs):
            share |= {f"rate.{name}": value for name, value in self._share(f"rate.{owner}.").items()}
        table = self.tensors.get("cloud.path_loss")
        if table is not None and bs < len(table):
            share.setdefault("path_loss", table[bs].clone())
        return share

    def cloud(self) -> dict[str, Tensor]:
        """Return the cloud's tensors, prefix removed, with the posterior covariances (K, D, D) of all BSs, if any."""
        share = self._share("cloud.") | {k: v for k, v in self.tensors.items() if k.startswith("rate.")}
        posteriors: list[Tensor] = []
        while (found := self.tensors.get(f"edge.{len(posteriors)}.posterior")) is not None:
            posteriors.append(found)
        if posteriors:
            share.setdefault("posterior", torch.stack(posteriors))
        return share

    def _share(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def save_weights(
    path: Path, weights: Weights, limit_bytes: int = LIMIT_BYTES, packed: Mapping[str, Packed] | None = None
) -> list[Path]:
    """Write a weights file; networks' floating point tensors in half precision.

    Files of an earlier save under the same name are removed.

    Args:
        path: path of the file; if there are shards, their names derive from it, and there is no file of this name.
        weights: weights to write.
        limit_bytes: maximum size of a shard [B]; a base station whose tensors are larger gets a shard of its own.
        packed: packed matrices to write instead of the tensors of the same names.

    Returns:
        The files written.
    """
    packed = packed or {}
    tensors: dict[str, Tensor] = {}
    for name, value in weights.tensors.items():
        if name in packed:
            tensors[name], tensors[name + _SCALE] = packed[name].stored()
        else:
            tensors[name] = _stored(name, value)
    parts = _shards(tensors, limit_bytes)
    paths = [path] if len(parts) == 1 else [_shard_path(path, n, len(parts)) for n in range(1, len(parts) + 1)]
    metadata = {"format": _FORMATS[2 if packed else 0], "config": json.dumps(weights.config, sort_keys=True)}
    if packed:
        shapes = {name: [matrix.bits, *matrix.shape] for name, matrix in packed.items()}
        metadata["packed"] = json.dumps(shapes, separators=(",", ":"))
    for part, target in zip(parts, paths, strict=True):
        with whole_file(target) as temporary:
            temporary.write_bytes(_sorted_header(save(part, metadata=metadata)))
    for stale in {path, *_existing_shards(path)} - set(paths):
        stale.unlink(missing_ok=True)
    return paths


def _sorted_header(data: bytes) -> bytes:
    """Return a safetensors file with its metadata in order: the library writes them in another one each time."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def load_weights(path: Path, *, alone: bool = False) -> Weights:
    """Read a weights file, with all shards that belong to it, and the file that it builds on unless it is read alone.

    Raises:
        UserError: the file or a shard is missing, truncated or not a weights file of this project, or the shards do
            not belong together.
    """
    paths = _files_of(path)
    configs: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    digest = hashlib.sha256()
    for file in paths:
        config, part = _read(file)
        configs.append(config)
        tensors |= part
        digest.update(file.read_bytes())
    if any(config != configs[0] for config in configs):
        raise UserError(f"The shards of the weights {path} are of different files: their configurations differ.")
    _require_modest(configs[0], tensors, path)
    found = Weights(configs[0], tensors, digest.hexdigest()[:16])
    return found if alone or "base" not in found.config else _completed(found, path)


def _completed(weights: Weights, path: Path) -> Weights:
    """Return weights with those of the files beside them that they build on; of two, the first has precedence.

    Raises:
        UserError: that file is missing or damaged, or is not the one that they were made for.
    """
    config = dict(weights.config)
    bases = config.pop("base")
    found: Weights = Weights({}, {})
    for base in reversed(bases if isinstance(bases, list) else [bases]):
        if not (isinstance(base, dict) and isinstance(base.get("file"), str)):
            raise UserError(f"The weights {path} are damaged: they do not name the file that they build on.")
        file = path.with_name(Path(base["file"]).name)
        other = load_weights(file, alone=True)
        if other.digest != base.get("digest"):
            raise UserError(f"The weights {path} build on {file}, which has changed since: make them again.")
        if "base" in other.config:  # no circle: each file holds the digest of the next
            other = _completed(other, file)
        found = Weights({**found.config, **other.config}, {**found.tensors, **other.tensors})
    return Weights({**found.config, **config}, {**found.tensors, **weights.tensors}, weights.digest)


def _require_modest(config: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Check that no network can be built from a configuration that is far larger than its tensors.

    Raises:
        UserError: a number outside the training's record is beyond any dimension.
    """
    most = max([MOST_DIMENSION, *(size for tensor in tensors.values() for size in tensor.shape)])
    level: list[tuple[str, Any]] = [(key, value) for key, value in config.items() if key != "record"]
    while level:
        name, value = level.pop()
        if isinstance(value, dict):
            level += [(f"{name}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list):
            level += [(name, inner) for inner in value]
        elif isinstance(value, int) and abs(value) > most:
            raise UserError(f"The weights {path} are damaged: {name} is beyond any of their dimensions.")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") not in _FORMATS:
                raise UserError(f"{path} is not a weights file of this project (format {metadata.get('format')!r}).")
            config = parse_json(metadata["config"])
            if not isinstance(config, dict):
                raise ValueError("its configuration is no table")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            for name, (bits, *shape) in parse_json(metadata.get("packed", "{}")).items():
                if name in tensors:  # the metadata list the packed matrices of all shards
                    scale = tensors.pop(name + _SCALE)
                    stored = Packed.of_stored(tensors[name], scale, bits, shape, metadata["format"])
                    tensors[name] = stored.tensor()
    except (
        SafetensorError,
        LocalError,
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RuntimeError,
    ) as error:
        sentence = f"The weights {path} are truncated or damaged ({error}); restore or train them again."
        raise UserError(sentence) from error
    return config, tensors


def _files_of(path: Path) -> list[Path]:
    """Return the file, or all shards, that a name refers to.

    Raises:
        UserError: one is missing.
    """
    shard = _SHARD.fullmatch(path.name)
    if shard is None and not path.is_file():
        found = _existing_shards(path)
        shard = _SHARD.fullmatch(found[0].name) if found else None
    if shard is None:
        paths = [path]
    else:
        whole = path.with_name(f"{shard[1]}.safetensors")
        paths = [_shard_path(whole, n, int(shard[3])) for n in range(1, int(shard[3]) + 1)]
    for file in paths:
        if not file.is_file():
            sentence = f"The weights {file} are missing; train them with `python cli.py train`, or restore the file."
            raise UserError(sentence)
    return paths


def _shards(tensors: dict[str, Tensor], limit_bytes: int) -> list[dict[str, Tensor]]:
    """Split tensors by owner: cloud, shared by all base stations, each base station; fill parts up to the limit."""
    groups: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        groups.setdefault(_owner(name), {})[name] = value
    parts: list[dict[str, Tensor]] = []
    size = 0
    for _, group in sorted(groups.items()):
        own = sum(value.nbytes for value in group.values())
        if not parts or size + own > limit_bytes:
            parts.append({})
            size = 0
        parts[-1] |= group
        size += own
    return parts or [{}]


def _owner(name: str) -> int:
    """Return the base station that a tensor belongs to; -2 for the cloud, -1 for all base stations."""
    owner = name.split(".")[1] if name.startswith("edge.") else ""
    return int(owner) if owner.isdecimal() else -1 if owner == "all" else -2


def _shard_path(path: Path, number: int, count: int) -> Path:
    return path.with_name(f"{path.stem}-{number:05d}-of-{count:05d}.safetensors")


def _existing_shards(path: Path) -> list[Path]:
    found = path.parent.glob(f"{path.stem}-*-of-*.safetensors")
    return sorted(file for file in found if (name := _SHARD.fullmatch(file.name)) and name[1] == path.stem)


def built_on(base: Weights, file: Path, made: Weights) -> Weights:
    """Return `made` without what the weights `base` of `file` have as well, to be saved beside that file."""
    config = {key: value for key, value in made.config.items() if key not in base.config or base.config[key] != value}
    tensors = {name: value for name, value in made.tensors.items() if not _equal(value, base.tensors.get(name))}
    return Weights({**config, "base": {"file": file.name, "digest": base.digest}}, tensors)


def _equal(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and value.shape == other.shape and torch.equal(value.double(), other.double())


def find_weights(scenario: str, scheme: str, bits: int | None, obtained: str = "train one") -> Path:
    """Return the shipped weights for a payload of `bits`, else those of the nearest resolution (the larger on a tie).

    Where none are shipped for the scheme, those are taken that `train` wrote to `CHECKPOINT_FOLDER`. For weights in
    shards, return the first shard. `obtained` tells how a user gets weights that there are not.

    Raises:
        UserError: there are no such weights for this scenario and scheme.
    """
    names = {b: f"{scheme}-{PayloadChoice(b).label}" for b in (*range(1, 9), None)}
    trained = CHECKPOINT_FOLDER / scenario
    for folder in (ASSET_FOLDER / scenario, trained):
        for name in (names[bits], scheme):
            if (path := _present(folder, name)) is not None:
                return path
        there = {b: path for b in range(1, 9) if (path := _present(folder, names[b])) is not None}
        if bits is not None and there:
            return there[min(there, key=lambda b: (abs(b - bits), -b))]
    raise UserError(
        f"No weights are shipped for scenario {scenario!r}, scheme {scheme!r}, {PayloadChoice(bits).words}, and there "
        f"are none in {trained}: name a file with --weights, or {obtained}."
    )


def _present(folder: Path, name: str) -> Path | None:
    path = folder / f"{name}.safetensors"
    return path if path.is_file() else next(iter(_existing_shards(path)), None)


def _stored(name: str, value: Tensor) -> Tensor:
    if value.is_floating_point() and not EXACT.search(name):
        value = value.to(torch.bfloat16 if _WIDE.search(name) else torch.float16)
    return value.contiguous()

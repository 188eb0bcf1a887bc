"""Point clouds as PLY."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kaleidoscene.captures.frames import PointCloud
from kaleidoscene.files import unreadable
from kaleidoscene.serialisation import save_aside

_KINDS = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}
_AXES, _NORMALS, _COLOURS = ("x", "y", "z"), ("nx", "ny", "nz"), ("red", "green", "blue")
_END = re.compile(rb"^end_header[ \t]*\r?\n", re.MULTILINE)


def read_ply(path: Path) -> PointCloud:
    """Vertices of a PLY file, text or binary: positions and, where there are some, what :func:`write_ply` writes.

    Points that are not finite are left out (sensors have some).

    Raises:
        KaleidosceneError: No PLY whose vertices come first and have x, y and z, or a truncated one.
    """
    try:
        data = path.read_bytes()
        if (end := _END.search(data)) is None:
            raise ValueError("it has no header")
        order, count, fields = _header(data[: end.start()])
        body = data[end.end() :]
        if order == "=":
            lines = [line for line in body.decode("latin-1").splitlines() if line.strip()][:count]
            rows = np.loadtxt(lines, dtype=fields, ndmin=1) if lines else np.empty(0, fields)
        else:
            rows = np.frombuffer(body, [(name, order + kind) for name, kind in fields], count)
        if len(rows) < count:
            raise ValueError(f"{len(rows)} of {count} vertices")
        positions = _columns(rows, _AXES)
        if positions is None:
            raise ValueError("no x, y and z")
        finite = np.isfinite(positions).all(1)
        rows, positions = rows[finite], positions[finite]
        bytes_each = all(rows.dtype[name].itemsize == 1 for name in _COLOURS if name in (rows.dtype.names or ()))
        colours = _columns(rows, _COLOURS) if bytes_each else None
        normals, confidence = _columns(rows, _NORMALS), _columns(rows, ("confidence",))
    except (OSError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise unreadable(path, "PLY file with points", error) from error
    return PointCloud(
        torch.from_numpy(positions),
        None if colours is None else torch.from_numpy(colours.astype(np.uint8)),
        None if normals is None else torch.from_numpy(normals),
        None if confidence is None else torch.from_numpy(confidence[:, 0]),
    )


def _columns(rows: np.ndarray, names: Sequence[str]) -> np.ndarray | None:
    """Properties of vertices beside each other, if all are there."""
    if not set(names) <= set(rows.dtype.names or ()):
        return None
    return np.stack([rows[name].astype(np.float64) for name in names], 1)


def _header(data: bytes) -> tuple[str, int, list[tuple[str, str]]]:
    """The byte order, and number and properties of the vertices."""
    lines = [line.split() for line in data.decode("latin-1").splitlines()]
    if not lines or lines[0] != ["ply"]:
        raise ValueError("it does not begin with 'ply'")
    order = next((line[1] for line in lines if line[:1] == ["format"]), "no format")
    elements = [number for number, line in enumerate(lines) if line[:1] == ["element"]]
    first, *others = elements
    if lines[first][1] != "vertex":
        raise ValueError(f"its first element is {lines[first][1]}")
    if (count := int(lines[first][2])) < 0:
        raise ValueError(f"{count} vertices")
    properties = [line for line in lines[first : (others or [len(lines)])[0]] if line[:1] == ["property"]]
    return _ORDERS[order], count, [(line[2], _KINDS[line[1]]) for line in properties]


def write_ply(path: Path, cloud: PointCloud) -> None:
    """Write a binary PLY with float positions and, where there are some, normals, 8-bit colours and confidence."""
    columns: dict[str, Tensor] = dict(zip(_AXES, cloud.positions.float().T, strict=True))
    if cloud.normals is not None:
        columns |= zip(_NORMALS, cloud.normals.float().T, strict=True)
    if cloud.colours is not None:
        columns |= zip(_COLOURS, cloud.colours.T, strict=True)
    if cloud.confidence is not None:
        columns["confidence"] = cloud.confidence.float()
    kinds = {name: ("uchar", "u1") if x.dtype == torch.uint8 else ("float", "<f4") for name, x in columns.items()}
    rows = np.empty(len(cloud), dtype=[(name, kind) for name, (_, kind) in kinds.items()])
    for name, column in columns.items():
        rows[name] = column.numpy()
    properties = "".join(f"property {word} {name}\n" for name, (word, _) in kinds.items())
    start = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{properties}end_header\n"
    save_aside(path, lambda file: file.write(start.encode() + rows.tobytes()))

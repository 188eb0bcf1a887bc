"""Point clouds as PLY."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kaleidoscene.captures.frames import PointCloud
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.serialisation import save_aside

_KINDS = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}
_END = b"end_header"


def read_ply(path: Path) -> PointCloud:
    """Positions, and colours where there are some, of the vertices of a PLY file, text or binary.

    Raises:
        KaleidosceneError: No PLY whose vertices come first and have x, y and z, or a truncated one.
    """
    try:
        data = path.read_bytes()
        head, order, count, fields = _header(data)
        body = data[data.index(b"\n", head) + 1 :]
        if order == "=":
            rows = np.loadtxt(body.decode("ascii").splitlines()[:count], dtype=fields, ndmin=1)
        else:
            rows = np.frombuffer(body, [(name, order + kind) for name, kind in fields], count)
        if len(rows) < count:
            raise ValueError(f"{len(rows)} of {count} vertices")
        positions = np.stack([rows[axis].astype(np.float64) for axis in "xyz"], 1)
        names = ("red", "green", "blue")
        colours = None
        if all(name in (rows.dtype.names or ()) and rows.dtype[name].itemsize == 1 for name in names):
            colours = torch.from_numpy(np.stack([rows[name].astype(np.uint8) for name in names], 1))
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise KaleidosceneError(f"{path}: not a PLY file with points ({error}).") from error
    return PointCloud(torch.from_numpy(positions), colours)


def _header(data: bytes) -> tuple[int, str, int, list[tuple[str, str]]]:
    """Where it ends, the byte order, and number and properties of the vertices."""
    end = data.index(_END)
    lines = [line.split() for line in data[:end].decode("ascii").splitlines()]
    if not lines or lines[0] != ["ply"]:
        raise ValueError("it does not begin with 'ply'")
    order = next((line[1] for line in lines if line[:1] == ["format"]), "no format")
    elements = [number for number, line in enumerate(lines) if line[:1] == ["element"]]
    first, *others = elements
    if lines[first][1] != "vertex":
        raise ValueError(f"its first element is {lines[first][1]}")
    properties = [line for line in lines[first:][: (others or [len(lines)])[0] - first] if line[:1] == ["property"]]
    if (count := int(lines[first][2])) < 1:
        raise ValueError(f"{count} vertices")
    return end, _ORDERS[order], count, [(line[2], _KINDS[line[1]]) for line in properties]


def write_ply(path: Path, cloud: PointCloud) -> None:
    """Write a binary PLY with float positions and, where there are some, normals, 8-bit colours and confidence."""
    columns: dict[str, Tensor] = dict(zip("xyz", cloud.positions.float().T, strict=True))
    if cloud.normals is not None:
        columns |= zip(("nx", "ny", "nz"), cloud.normals.float().T, strict=True)
    if cloud.colours is not None:
        columns |= zip(("red", "green", "blue"), cloud.colours.T, strict=True)
    if cloud.confidence is not None:
        columns["confidence"] = cloud.confidence.float()
    kinds = {name: ("uchar", "u1") if x.dtype == torch.uint8 else ("float", "<f4") for name, x in columns.items()}
    rows = np.empty(len(cloud), dtype=[(name, kind) for name, (_, kind) in kinds.items()])
    for name, column in columns.items():
        rows[name] = column.numpy()
    properties = "".join(f"property {word} {name}\n" for name, (word, _) in kinds.items())
    start = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{properties}end_header\n"
    save_aside(path, lambda file: file.write(start.encode() + rows.tobytes()))

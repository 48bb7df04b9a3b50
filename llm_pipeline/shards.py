"""Sharded safetensors written tensor by tensor: shapes are known first, bytes come as they are made.

A file is the length of its header (u64, little endian), the header in JSON, then the tensors; the header names every
tensor's place, so it is written before any tensor exists and memory holds one tensor, or one piece of it, at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from math import prod
from pathlib import Path

import torch

from llm_pipeline.checkpoint import FLOATS, INDEX, SINGLE
from solvers.refusal import Refusal

NAMES = {dtype: name for name, dtype in FLOATS.items()}
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
Shapes = dict[str, tuple[int, ...]]


def parse_size(text: str) -> int:
    """Bytes of ``500MB`` or ``2GB``, decimal as on the hub."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB)", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise Refusal(f"a size is a number with KB, MB or GB, for example 2GB; got '{text}'.")
    return size


def layout(shapes: Shapes, dtype: torch.dtype, limit: int) -> dict[str, list[str]]:
    """Tensor names by file, in order; a new file begins where the next tensor would exceed `limit` bytes."""
    files: list[list[str]] = [[]]
    room = limit
    for name, shape in shapes.items():
        size = prod(shape) * dtype.itemsize
        if files[-1] and size > room:
            files.append([])
            room = limit
        files[-1].append(name)
        room -= size
    if len(files) == 1:
        return {SINGLE: files[0]}
    return {f"model-{k:05d}-of-{len(files):05d}.safetensors": names for k, names in enumerate(files, start=1)}


def write_shards(
    folder: Path, shapes: Shapes, dtype: torch.dtype, limit: int, pieces: Callable[[str], Iterable[torch.Tensor]]
) -> None:
    """Write every tensor, and the index where there is more than one file.

    Parameters
    ----------
    pieces : name -> tensors of any float dtype that make up the tensor in row-major order, one after the other
    """
    files = layout(shapes, dtype, limit)
    for file, names in files.items():
        with (folder / file).open("wb") as out:
            out.write(_header({name: shapes[name] for name in names}, dtype))
            for name in names:
                for piece in pieces(name):
                    out.write(piece.to(dtype).contiguous().reshape(-1).view(torch.uint8).numpy())
    if len(files) > 1:
        total = sum(map(prod, shapes.values())) * dtype.itemsize
        places = {name: file for file, names in files.items() for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _header(shapes: Shapes, dtype: torch.dtype) -> bytes:
    fields: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, shape in shapes.items():
        stop = place + prod(shape) * dtype.itemsize
        fields[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [place, stop]}
        place = stop
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text

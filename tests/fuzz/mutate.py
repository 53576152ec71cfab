"""Damage, drawn from a seed: to bytes, to trees of JSON, to the parts of a package."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

from model.package import PackageView

ODD_TEXTS = (
    "",
    "\x00",
    "../../etc/passwd",
    "a\r\nb\x1b[2J",
    "\u202egnp.scan",
    "[/bold] [link=file:///]x",
    "<script>alert(1)</script>",
    "{{ 7*7 }}",
    "%s%n${jndi:x}",
    "𝟙٠",
    "é" * 5000,
    "x" * 200_000,
    "sites/st-anna/",
    "con.safetensors\u0000",
)
ODD_NUMBERS = (
    *("0", "-1", "-0.0", "1", "255", "65536", "2147483647", "2147483648", "4294967295"),
    *("9223372036854775807", "18446744073709551616", "9" * 400, "9" * 5000, "1e999", "-1e999", "1e-999"),
    *("1e308", "5e-324", "NaN", "Infinity", "-Infinity", "0.1" + "3" * 300, "1.0", "0x10", "01", "1e400000"),
)
ODD_VALUES = (
    *("null", "true", "false", "[]", "{}", "[[]]", '{"":{}}', '"NaN"', '"1"', "[null]", '["a","b"]'),
    *("[" * 200 + "]" * 200, "[" * 3000, '{"a":' * 3000 + "1" + "}" * 3000, "[" + "0," * 30_000 + "0]"),
)
_HOLE = "\ue000"
_COUNTS = re.compile(
    rb'"(scales|codes|layers)":\{"dtype":"(?:F16|U8)","shape":\[(\d+)\],"data_offsets":\[\d+,\d+\]\}'
)


def damage_bytes(draw: Random, data: bytes) -> bytes:
    """Flip, cut, repeat, insert or swap, one to eight times."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 8))):
        at = draw.randrange(len(changed) + 1)
        size = draw.choice((1, 1, 2, 4, 8, 64, 1024))
        match draw.randrange(6):
            case 0:
                changed[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del changed[at : at + size]
            case 2:
                changed[at:at] = draw.randbytes(size)
            case 3:
                changed[at:at] = changed[at : at + size]
            case 4:
                del changed[at:]
            case _:
                changed[at : at + size] = draw.choice((b"\x00", b"\xff", b"\x7f", b"[", b'"')) * size
    return bytes(changed)


def damage_json(draw: Random, data: bytes) -> bytes:
    """Put odd values, names and nesting into a tree; now and then its bytes are damaged too, or all is huge."""
    if draw.random() < 0.15:
        return damage_bytes(draw, data)
    tree = json.loads(data)
    pieces: list[str] = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        tree = _damage_tree(draw, tree, pieces)
    text = json.dumps(tree, ensure_ascii=draw.random() < 0.5)
    for k, piece in enumerate(pieces):
        for hole in (_HOLE, json.dumps(_HOLE)[1:-1]):
            text = text.replace(f'"{hole}{k}"', piece)
    if draw.random() < 0.005:
        text = draw.choice(
            ("[" * 2_000_000, text[:-1] + "," + '"a":0,' * 300_000 + '"b":0}', " " * 9_000_000 + text)
        )
    return text.encode("utf-8", "surrogatepass")


def damage_package(draw: Random, data: bytes) -> bytes:
    """Damage a package's bytes, its list of layers under a frame that fits, its frame, or its numbers."""
    match draw.randrange(5):
        case 0:
            return damage_bytes(draw, data)
        case 1:
            _, scales, codes, index = parts(data)
            return assemble(scales, codes, damage_json(draw, index))
        case 2:
            start, *payload = parts(data)
            header = damage_json(draw, data[8:start])
            length = draw.choice((len(header), len(header), draw.randrange(2**16), 2**63, 2**64 - 1))
            return length.to_bytes(8, "little") + header + b"".join(payload)
        case 3:
            return _damage_sizes(draw, data)
        case _:
            return _damage_numbers(draw, data)


def _damage_tree(draw: Random, tree: Any, pieces: list[str]) -> Any:
    """One change somewhere; what JSON's own writer would not write is a numbered hole, filled in later."""
    path = _somewhere(draw, tree)
    if not path:
        return draw.choice(([tree], {"a": tree}, None, tree))
    parent = tree
    for step in path[:-1]:
        parent = parent[step]
    key = path[-1]
    match draw.randrange(7):
        case 0:
            parent[key] = draw.choice(ODD_TEXTS)
        case 1 | 2:
            pieces.append(draw.choice(ODD_NUMBERS))
            parent[key] = f"{_HOLE}{len(pieces) - 1}"
        case 3:
            pieces.append(draw.choice(ODD_VALUES))
            parent[key] = f"{_HOLE}{len(pieces) - 1}"
        case 4:
            del parent[key]
        case 5 if isinstance(parent, dict):
            parent[draw.choice((*ODD_TEXTS, "extra", str(key).upper()))] = parent[key]
        case 5:
            parent += [parent[key]] * draw.choice((1, 3, 3000))
        case _ if isinstance(parent[key], int | float):
            parent[key] = draw.choice(
                (-1, 0, 1, parent[key] * 2, parent[key] + 1, -parent[key], 10**9, 0.5, 1e30)
            )
        case _:
            parent[key] = {"a": parent[key]} if draw.random() < 0.5 else [parent[key]]
    return tree


def _somewhere(draw: Random, tree: Any) -> list[Any]:
    path: list[Any] = []
    while isinstance(tree, dict | list) and tree and draw.random() < 0.85:
        key = draw.choice(list(tree)) if isinstance(tree, dict) else draw.randrange(len(tree))
        path.append(key)
        tree = tree[key]
    return path


def _damage_sizes(draw: Random, data: bytes) -> bytes:
    """Other sizes in a well-formed list of layers; codes and scales that fit them, or do not."""
    _, scales, codes, index = parts(data)
    tree = json.loads(index)
    rows = tree["layers"]
    name, *sizes = draw.choice(rows)
    big = draw.choice((1, 3, 17, 64, 65, 4096, 2**20, 2**31 - 1, 2**31, 10**12))
    sizes[draw.randrange(3)] = big
    names = (*(text for text in ODD_TEXTS if text.isprintable()), name + "x", name)
    added = [[draw.choice(names), *sizes] for _ in range(draw.choice((1, 1, 2, 3)))]
    if draw.random() < 0.02:
        added = [[f"{k:05d}", 1, 1, 1] for k in range(40_000)]
    kept = [row for row in rows if row[0] != name] if draw.random() < 0.7 else rows
    tree["layers"] = draw.choice((sorted, list))([*kept, *added])
    tree["dtype"] = draw.choice((tree["dtype"], "int4", "int8", "fp16", "fp32", "fp64", "int2"))
    codes = (
        codes
        if draw.random() < 0.3
        else draw.randbytes(draw.choice((0, 10, 3_900_000, len(codes) + big % 4096)))
    )
    return assemble(scales, codes, json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode())


def _damage_numbers(draw: Random, data: bytes) -> bytes:
    """A package of right form with odd numbers: NaN, infinities, the largest, the smallest, all alike."""
    _, scales, codes, index = parts(data)
    width = {"fp16": 2, "fp32": 4}.get(PackageView(data).dtype, 1)
    odd = {
        1: (b"\x7f", b"\x80", b"\x88", b"\x00", b"\xff"),
        2: (b"\x00\x7e", b"\x00\x7c", b"\x00\xfc", b"\xff\x7b", b"\x01\x00", b"\x00\x80"),
        4: (
            b"\x00\x00\xc0\x7f",
            b"\x00\x00\x80\x7f",
            b"\xff\xff\x7f\x7f",
            b"\x01\x00\x00\x00",
            b"\x00\x00\x00\x60",
        ),
    }
    mixed = bytearray(codes)
    _overwrite(draw, mixed, width, draw.choice(odd[width]))
    weighed = bytearray(scales)
    if weighed and draw.random() < 0.7:
        _overwrite(draw, weighed, 2, draw.choice(odd[2]))
    return assemble(bytes(weighed), bytes(mixed), index)


def _overwrite(draw: Random, data: bytearray, width: int, value: bytes) -> None:
    n = len(data) // width
    first = draw.choice((0, draw.randrange(n)))
    count = min(n - first, draw.choice((1, 1, 16, 1024, n)))
    data[width * first : width * (first + count)] = value * count


def parts(data: bytes) -> tuple[int, bytes, bytes, bytes]:
    """Where the payload of a valid package starts; its scales, codes and list of layers."""
    start = 8 + int.from_bytes(data[:8], "little")
    counts = {name: int(count) for name, count in _COUNTS.findall(data[:start])}
    codes_at = start + 2 * counts[b"scales"]
    index_at = codes_at + counts[b"codes"]
    return start, data[start:codes_at], data[codes_at:index_at], data[index_at:]


def assemble(scales: bytes, codes: bytes, index: bytes) -> bytes:
    """A package of any content, in a frame that fits its lengths."""
    return _frame(len(scales), len(codes), index) + scales + codes + index


def _frame(scales: int, codes: int, index: bytes) -> bytes:
    """The header that fits these lengths, as the format has it."""
    header, at = {}, 0
    three = (("scales", "F16", scales, 2), ("codes", "U8", codes, 1), ("layers", "U8", len(index), 1))
    for name, dtype, size, width in three:
        header[name] = {"dtype": dtype, "shape": [size // width], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text

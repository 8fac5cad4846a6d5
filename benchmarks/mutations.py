"""Random changes of files: bits, numbers, lines, words, lengths."""

import random
import re
import struct
from collections.abc import Callable

import numpy as np

EXTREMES = (
    b"0", b"-1", b"1", b"2", b"7", b"255", b"32768", b"65536", b"2147483647", b"4294967296", b"-2147483648", b"1e308",
    b"1e-308", b"1e39", b"nan", b"inf", b"-inf", b"99999999999999999999", b"", b"1.5", b"0x10", b"%s%n", b"A" * 5000,
)  # fmt: skip
EXTREME_BYTES = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\x01")


def mutate(content: bytes, header_length: int, rng: random.Random) -> bytes:
    """Change a file at random, mostly in its header: one to three changes.

    Args:
        content: Of a good file.
        header_length: Bytes at its beginning that are most of interest.
        rng: Chooses.
    """
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = rng.choice(MUTATIONS)(content, header_length, rng)
    return content


def flip_bits(content: bytes, header_length: int, rng: random.Random) -> bytes:
    """Turn some bits round."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 8, 64))):
        if changed:
            changed[_place(changed, header_length, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(content: bytes, header_length: int, rng: random.Random) -> bytes:
    """Put bytes of one value, or a number that is extreme in its type, over some bytes."""
    place = _place(content, header_length, rng)
    number = rng.choice((0, -1, 1, 2**15 - 1, -(2**15), 2**31 - 1))
    packed = (
        rng.choice(EXTREME_BYTES) * rng.choice((1, 2, 4, 8, 40)),
        struct.pack(rng.choice("<>") + "i", number),
        struct.pack(rng.choice("<>") + "h", number % 2**16 - 2**15),
        struct.pack(rng.choice("<>") + "f", rng.choice((np.nan, np.inf, -1.0, 0.0, 1e38, 1e-38, 1e9, 3e5, 1000.0))),
    )
    new = rng.choice(packed)
    if rng.random() < 0.5:
        place -= place % len(new)
    return content[:place] + new + content[place + len(new) :]


def change_number(content: bytes, header_length: int, rng: random.Random) -> bytes:
    """Replace a number in words by an extreme one; in binary headers, an aligned field."""
    numbers = list(re.finditer(rb"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", content[:header_length]))
    if len(numbers) < 10:
        return overwrite(content, header_length, rng)
    found = rng.choice(numbers)
    return content[: found.start()] + rng.choice(EXTREMES) + content[found.end() :]


def change_lines(content: bytes, header_length: int, rng: random.Random) -> bytes:
    """Drop, double or swap lines of the header, or cut it into one line less."""
    lines = content[:header_length].split(b"\n")
    place = rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(rng.randrange(len(lines)), lines[place])
    elif kind == 2:
        other = rng.randrange(len(lines))
        lines[place], lines[other] = lines[other], lines[place]
    else:
        lines[place] = lines[place][: rng.randrange(len(lines[place]) + 1)]
    return b"\n".join(lines) + content[header_length:]


def change_words(content: bytes, header_length: int, rng: random.Random) -> bytes:
    """Replace a word of the header by another one of it, or by a path, a pattern or something long."""
    words = list(re.finditer(rb"[A-Za-z_.%/-]+", content[:header_length]))
    if len(words) < 5:
        return flip_bits(content, header_length, rng)
    found, other = rng.choice(words), rng.choice(words)
    new = rng.choice((other[0], b"/dev/zero", b"/dev/stdin", b"..", b"LIST", b"%d", b"x%03d.raw 1 9 1", b"B" * 3000))
    return content[: found.start()] + new + content[found.end() :]


def change_length(content: bytes, header_length: int, rng: random.Random) -> bytes:
    """Cut the file off, repeat a part of it, or add to it."""
    place = rng.randrange(len(content) + 1)
    kind = rng.randrange(4)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[: min(place, header_length)]
    if kind == 2:
        return content[:place] + content[place : place + rng.randrange(2000)] + content[place:]
    return content + bytes(rng.choice((1, 100, 5000)))


MUTATIONS: tuple[Callable[[bytes, int, random.Random], bytes], ...] = (
    flip_bits, overwrite, overwrite, change_number, change_number, change_lines, change_words, change_length,
)  # fmt: skip


def _place(content: bytes | bytearray, header_length: int, rng: random.Random) -> int:
    """A place in the header, or, once in five times, anywhere."""
    return rng.randrange(max(1, len(content) if rng.random() < 0.2 else min(len(content), header_length)))

"""Values that a hostile or damaged file may hold where another one is expected, and changes of JSON with them."""

import json
import random
from typing import Any

NUMBERS = (
    *(0, -1, 1, 3, 24, 255, 256, 32767, 65535, 65536, 100_000, 10**9, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30),
    *(0.01, 1e-9, 1e-308, 500.0, 1e9, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), 0.5, -0.0),
)
WORDS = (
    *("", ".", "..", "../evil", "../../x/evil.nii.gz", "/../../x/evil.nii.gz", "/etc/passwd", "{outside}/evil", "a/b"),
    *(
        "C:\\evil",
        "..\\evil",
        "a:b",
        "con",
        "NUL.json",
        ".hidden",
        "evil\x00.nii",
        "\x1b[31mred\x1b[0m",
        "\u202egnp.exe",
    ),
    *(
        "a" * 400,
        "b" * 100_000,
        "ü" * 150,
        "true",
        "nan",
        "1",
        "{0.__class__}",
        "%s%n",
        "$HOME",
        "unet",
        "slices",
        "\n",
    ),
)
MOST_REPEATED = 2000


def hostile_value(rng: random.Random, old: Any = None) -> Any:
    """A value that is not expected, often one of the same type."""
    kind = rng.randrange(10)
    if kind < 4 and isinstance(old, int | float) and not isinstance(old, bool):
        return rng.choice((*NUMBERS, old * 10 ** rng.randrange(1, 9), -old, old + 1))
    if kind < 5 and isinstance(old, str):
        return rng.choice((*WORDS, f"../{old}", f"{old}/..", f"/{old}", old * 100))
    if kind < 6 and isinstance(old, list) and old:
        return rng.choice((old * rng.choice((2, 8, MOST_REPEATED // len(old) + 1)), old[:-1], old[::-1], [old]))
    if kind < 7:
        return rng.choice(NUMBERS)
    if kind < 8:
        return rng.choice(WORDS)
    return rng.choice((None, True, [], {}, [[]], {"": {}}, nested(rng.choice((10, 150))), list(range(5000))))


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def change_value(value: Any, rng: random.Random) -> Any:
    """A JSON value with one to three changes: values replaced, keys deleted, renamed, added, parts exchanged."""
    changed = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = [place for place in _places(changed) if place[1] is not None]
        if not places:
            return hostile_value(rng, changed)
        container, key = rng.choice(places)
        kind = rng.randrange(10)
        if kind < 7:
            container[key] = hostile_value(rng, container[key])
        elif kind < 8:
            del container[key]
        elif isinstance(container, dict):
            container[rng.choice((*WORDS, "extra"))] = container.pop(key) if kind < 9 else hostile_value(rng)
        else:
            container.append(hostile_value(rng))
    return changed


def change_json(content: bytes, rng: random.Random) -> bytes:
    """A JSON text with changed values; rarely one whose nesting or numbers no reader takes."""
    if rng.random() < 0.03:
        return rng.choice(
            (b"[" * 200_000, b'{"a":' * 50_000, b"1" * 100_000, b"", b"null", b"[1e999]", b'{"a":1,"a":2}')
        )
    return json.dumps(change_value(json.loads(content), rng)).encode("utf-8", "surrogatepass")


def _places(value: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    """Containers and keys of all values inside of a value, as far as a hundred levels deep."""
    if depth > 100 or not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(min(len(value), 50)))
    found: list[tuple[Any, Any]] = [(value, key) for key in keys]
    for key in keys:
        found += _places(value[key], depth + 1)
    return found

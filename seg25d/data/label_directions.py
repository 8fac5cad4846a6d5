"""Names of labels that distinguish the two directions of an axis: left and right, upper and lower, front and back."""

import re
from collections.abc import Iterable, Mapping

_OPPOSITES = {
    0: (("superior", "inferior"), ("upper", "lower"), ("cranial", "caudal"), ("apical", "basal")),
    1: (("anterior", "posterior"), ("ventral", "dorsal")),
}
"""Words for the two ends of the axes D and H."""
_SIDES = (
    *(("left", "right"), ("l", "r"), ("lh", "rh"), ("lt", "rt"), ("lft", "rgt")),
    *(("sin", "dex"), ("sin", "dext"), ("sin", "dx"), ("sx", "dx"), ("sinister", "dexter"), ("sinistra", "dextra")),
    *(("sinistrum", "dextrum"), ("sinistra", "destra"), ("sinistro", "destro"), ("gauche", "droite")),
    *(("gauche", "droit"), ("links", "rechts"), ("linke", "rechte"), ("linker", "rechter"), ("linkes", "rechtes")),
    *(("li", "re"), ("izquierda", "derecha"), ("izquierdo", "derecho"), ("esquerda", "direita")),
    ("esquerdo", "direito"),
)
"""Words for left and right in English, Latin and the languages that labels are written in. All but the first pair mean
sides only where the same name with the other word is there too: `R` or `sin` alone may be anything."""
_LOBES = {
    "lul": ("left", "upper", "lobe"),
    "lll": ("left", "lower", "lobe"),
    "rul": ("right", "upper", "lobe"),
    "rml": ("right", "middle", "lobe"),
    "rll": ("right", "lower", "lobe"),
}
"""Lobes of the lung, as radiologists abbreviate them; taken for that where two of them are among the names."""


def directed_labels(names: Iterable[str]) -> dict[int, tuple[str, ...]]:
    """The labels per axis whose names distinguish its two directions, so that mirroring would make them wrong.

    Args:
        names: Of all labels.

    Returns:
        Names in their order, for each axis (0 D, 1 H, 2 W) that has any:

        - D and H: all with a word of a pair of opposites (`superior` and `inferior`) of which both words are there.
        - W: all with the word `left` or `right`; and those whose counterpart on the other side is there (`leftlung` and
          `rightlung`, `Kidney (L)` and `Kidney (R)`, `lt femur` and `rt femur`, `LUL` and `RUL`).
    """
    words = _words_of(tuple(dict.fromkeys(names)))
    known = {word for each in words.values() for word in each}
    found = {}
    for axis, pairs in _OPPOSITES.items():
        meant = {word for pair in pairs if set(pair) <= known for word in pair}
        found[axis] = tuple(name for name, each in words.items() if meant & set(each))
    sided = _sided(words)
    found[2] = tuple(name for name in words if name in sided)
    return {axis: labels for axis, labels in found.items() if labels}


def _words_of(names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The words of each name, lobes of the lung in full."""
    words = {name: _words(name) for name in names}
    lobes = {word for each in words.values() for word in each if word in _LOBES}
    if len(lobes) < 2:
        return words
    return {name: tuple(part for word in each for part in _LOBES.get(word, (word,))) for name, each in words.items()}


def _words(name: str) -> tuple[str, ...]:
    """The words of a name in lowercase: `LeftKidney_2` gives left, kidney, 2."""
    return tuple(word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name))


def _sided(words: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Names that say on which side something is, from the words of all names."""
    sided = {name for name, each in words.items() if {"left", "right"} & set(each)}
    # In any order, as in `L kidney` and `kidney R`.
    by_words = {tuple(sorted(each)): name for name, each in words.items()}
    for name, each in words.items():
        for left, right in _SIDES:
            counterpart = by_words.get(tuple(sorted(right if word == left else word for word in each)))
            if left in each and counterpart is not None:
                sided |= {name, counterpart}
    plain = {name.lower(): name for name in words}
    for name in words:
        # Written as one word, which the split into words does not see.
        counterpart = plain.get(name.lower().replace("left", "right"))
        if "left" in name.lower() and counterpart is not None:
            sided |= {name, counterpart}
    return sided

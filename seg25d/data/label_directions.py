"""Names of labels that distinguish the two directions of an axis: left and right, upper and lower, front and back."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

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
"""Lobes of the lung, as radiologists abbreviate them."""
_PAIRED = ("pa", "ca", "cca", "sca", "ica", "aca", "mca", "pca")
"""Arteries, as `LPA` and `RPA` abbreviate them: pulmonary, coronary, carotid, subclavian and cerebral ones. Chambers of
the heart, `LV` and `RV`, are not among them, as they differ in more than their side."""
_ABBREVIATED = tuple((f"l{part}", f"r{part}") for part in _PAIRED)
_BEGINNINGS = (("left", "right", 1), ("lt", "rt", 3), ("l", "r", 4))
_ENDS = (("left", "right", 2), ("lt", "rt", 3))
"""Sides at the beginning and end of a longer word, as in `rkidney` and `lungrt`, and how many letters it has beside
them at least: `cleft` and `bright` are other words."""


def directed_labels(names: Iterable[str]) -> dict[int, tuple[str, ...]]:
    """The labels per axis whose names distinguish its two directions, so that mirroring would make them wrong.

    Args:
        names: Of all labels.

    Returns:
        Names in their order, for each axis (0 D, 1 H, 2 W) that has any:

        - D and H: all with a word of a pair of opposites (`superior` and `inferior`) of which both words are there.
        - W: all with the word `left` or `right`; and those whose counterpart on the other side is there (`leftlung` and
          `rightlung`, `Kidney (L)` and `Kidney (R)`, `lt femur` and `rt femur`, `lkidney` and `rkidney`, `LICA`
          and `RICA`), apart from one letter with a number, which are vertebrae; and lobes of the lung such as `LUL`.
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
    return {name: tuple(part for word in _words(name) for part in _LOBES.get(word, (word,))) for name in names}


def _words(name: str) -> tuple[str, ...]:
    """The words of a name in lowercase: `LeftKidney_2` gives left, kidney, 2."""
    return tuple(word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name))


def _sided(words: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Names that say on which side something is, from the words of all names."""
    sided = {name for name, each in words.items() if {"left", "right"} & set(each)}
    # In any order, as in `L kidney` and `kidney R`.
    by_words = {tuple(sorted(each)): name for name, each in words.items() if not _is_numbered_letter(each)}
    for own, name in by_words.items():
        for index, word in enumerate(own):
            for right in _on_the_right(word):
                counterpart = by_words.get(tuple(sorted((*own[:index], right, *own[index + 1 :]))))
                if counterpart is not None:
                    sided |= {name, counterpart}
    return sided


def _is_numbered_letter(words: Sequence[str]) -> bool:
    """Whether a name is a letter with a number, such as the vertebra `L1`."""
    return [word.isdigit() for word in words] == [False, True] and len(words[0]) == 1


def _on_the_right(word: str) -> Iterator[str]:
    """The words that name on the right what this one names on the left."""
    for left, right in (*_SIDES, *_ABBREVIATED):
        if word == left:
            yield right
    for left, right, letters in _BEGINNINGS:
        if word.startswith(left) and len(word) >= len(left) + letters:
            yield right + word.removeprefix(left)
    for left, right, letters in _ENDS:
        if word.endswith(left) and len(word) >= len(left) + letters:
            yield word.removesuffix(left) + right

"""Checks of the labels that `dataset.json` declares."""

from collections.abc import Mapping, Sequence

MAX_VALUES = 254
"""Internal indices are bytes, of which two are reserved: for ignored and for undeclared values."""

LARGEST_VALUE = 2**31 - 1
"""Of label files in the largest type that is written, int32."""


def label_problems(names: Mapping[str, int | tuple[int, ...]], order: Sequence[int] | None) -> list[str]:
    """Find all problems with a declaration of labels.

    Args:
        names: Value or values per name, `ignore` included if declared.
        order: The `regions_class_order`, if given.

    Returns:
        One sentence per problem; empty if there is none.
    """
    classes = {name: members_of(value) for name, value in names.items() if name != "ignore"}
    values = sorted({value for members in classes.values() for value in members})
    if max(len(classes), len(values)) > MAX_VALUES:
        return [f"labels: {max(len(classes), len(values))} are declared; at most {MAX_VALUES} are possible"]
    problems = _background_problems(classes, values)
    if not any(value > 0 for value in values):
        problems.append("labels: no foreground class is declared; add one, such as {'tumour': 1}")
    problems += [f"labels: '{name}' is an empty list of values" for name, members in classes.items() if not members]
    if values and values[0] < 0:
        problems.append(f"labels: value {values[0]} is negative; values count from 0")
    if (largest := max((*values, *members_of(names.get("ignore", 0))), default=0)) > LARGEST_VALUE:
        problems.append(f"labels: value {largest} is too large for label files, which have 31 bits")
    if "ignore" in names:
        ignore = members_of(names["ignore"])
        if len(ignore) != 1 or (values and ignore[0] <= values[-1]):
            problems.append(
                f"labels: 'ignore' must be one value, the highest of all, at least {(values or [0])[-1] + 1}; "
                f"it is {names['ignore']}"
            )
    return problems + _region_problems(classes, values, order)


def _background_problems(classes: Mapping[str, tuple[int, ...]], values: Sequence[int]) -> list[str]:
    problems = []
    background = classes.get("background")
    if background is not None and background != (0,):
        problems.append(f"labels: 'background' must be 0, it is {', '.join(map(str, background))}")
    elif 0 not in values:
        problems.append("labels: no name has the value 0; add 'background': 0")
    mixed = [name for name, members in classes.items() if 0 in members and len(members) > 1]
    problems += [f"labels: region '{name}' holds the background 0; take it out of the list" for name in mixed]
    return problems


def _region_problems(
    classes: Mapping[str, tuple[int, ...]], values: Sequence[int], order: Sequence[int] | None
) -> list[str]:
    foreground = [name for name, members in classes.items() if members != (0,)]
    if not any(len(members) > 1 for members in classes.values()):
        single = [members[0] for members in classes.values() if members]
        return [
            f"labels: the value {value} has several names "
            f"({', '.join(name for name, members in classes.items() if members == (value,))}); keep one"
            for value in sorted({value for value in single if single.count(value) > 1})
        ]
    if order is None:
        return [
            "regions_class_order is missing: labels that are lists of values need it, one value for each of "
            f"{', '.join(foreground)}"
        ]
    problems = []
    if len(order) != len(foreground):
        problems.append(
            f"regions_class_order has {len(order)} values, but there are {len(foreground)} regions "
            f"({', '.join(foreground)}); give one for each"
        )
    unknown = sorted(set(order) - set(values))
    problems += [f"regions_class_order: the value {value} is not declared under labels" for value in unknown]
    return problems


def members_of(value: int | tuple[int, ...]) -> tuple[int, ...]:
    """The values that a name stands for: one, or those of a region."""
    return value if isinstance(value, tuple) else (value,)

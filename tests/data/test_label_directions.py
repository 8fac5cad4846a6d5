"""Which names of labels distinguish the two directions of an axis."""

import pytest

from seg25d.data.label_directions import directed_labels


@pytest.mark.parametrize(
    "names",
    [
        ("LUL", "RUL"),
        ("lung_LUL", "lung_LLL", "lung_RUL", "lung_RML", "lung_RLL"),
        ("RUL", "RML", "RLL"),
        ("lt femur", "rt femur"),
        ("Femur Lt.", "Femur Rt."),
        ("LtKidney", "RtKidney"),
        ("Kidney (L)", "Kidney (R)"),
        ("Hippocampus_L", "Hippocampus_R"),
        ("KidneyL", "KidneyR"),
        ("L kidney", "kidney R"),
        ("ren sin", "ren dex"),
        ("ren sin.", "ren dext."),
        ("ren_sin", "ren_dx"),
        ("rene sx", "rene dx"),
        ("atrium sinistrum", "atrium dextrum"),
        ("auris sinister", "auris dexter"),
        ("rein gauche", "rein droit"),
        ("oreillette gauche", "oreillette droite"),
        ("linke Niere", "rechte Niere"),
        ("Niere links", "Niere rechts"),
        ("Niere li", "Niere re"),
        ("rinon izquierdo", "rinon derecho"),
        ("ctx-lh-insula", "ctx-rh-insula"),
        ("leftlung", "rightlung"),
        ("lungleft", "lungright"),
        ("LEFTLUNG", "RIGHTLUNG"),
        ("lkidney", "rkidney"),
        ("lkidney tumour", "rkidney tumour"),
        ("lunglt", "lungrt"),
        ("LPA", "RPA"),
        ("LICA", "RICA"),
        ("LUL",),
        ("L rib 1", "R rib 1"),
    ],
)
def test_sides(names: tuple[str, ...]) -> None:
    assert directed_labels(("background", "liver", *names))[2] == names


@pytest.mark.parametrize(
    "names",
    [
        ("liver", "cortex", "sinus", "ladder"),
        ("ren sin",),
        ("rt",),
        ("cortex", "colt"),
        ("sinus frontalis", "dexa"),
        ("sin tumour", "dex kidney"),
        ("L1", "L2", "L3"),
        ("L_hippocampus", "R_amygdala"),
        ("L1", "L2", "R1"),
        ("l 1", "r 1"),
        ("bright spot", "cleft"),
        ("bright", "bleft"),
        ("cleft", "cright"),
        ("lobe", "robe", "lung", "rung"),
        ("LV", "RV", "MYO"),
        ("LA", "RA"),
        ("gauche", "adroit"),
        ("redroit", "regauche"),
    ],
)
def test_no_sides(names: tuple[str, ...]) -> None:
    assert 2 not in directed_labels(names)


def test_only_those_with_a_counterpart_are_named_but_for_left_and_right() -> None:
    names = ("lt rib", "rt rib", "lt kidney", "spine", "left ear")
    assert directed_labels(names) == {2: ("lt rib", "rt rib", "left ear")}


def test_lobes_of_the_lung_say_upper_and_lower_too() -> None:
    lobes = ("LUL", "LLL", "RUL", "RML", "RLL")
    assert directed_labels(lobes) == {0: ("LUL", "LLL", "RUL", "RLL"), 2: lobes}
    assert directed_labels(("LUL", "RUL")) == {2: ("LUL", "RUL")}


def test_opposites_concern_their_axis() -> None:
    assert directed_labels(("upper jaw", "lower jaw", "ventral root", "dorsal root", "spine")) == {
        0: ("upper jaw", "lower jaw"),
        1: ("ventral root", "dorsal root"),
    }
    assert directed_labels(("upper jaw", "ventral root")) == {}

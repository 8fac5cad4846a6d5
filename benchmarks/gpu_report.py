"""Results of gpu_check.py as text."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

Row = dict[str, Any]


def as_text(rows: Collection[Row], known: Mapping[str, Any], skipped: Sequence[str]) -> str:
    """Format the results of gpu_check.py as a table with further findings."""
    names = list(dict.fromkeys(name for row in rows for name in row["update_s"]))
    header = [
        "",
        "GB planned",
        "GB of tensors, torch, device",
        "share of matrix rate",
        *(f"{each}/s" for each in names),
    ]
    header += ["train/s", "waits for data", "Mvoxel/s", "Dice (updates)"]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        memory = row.get("memory_gb", {}).values()
        train, together = row.get("train", {}), row.get("together", {})
        lines.append(
            [
                row["name"],
                number(row.get("planned_gb")),
                ", ".join(f"{each:.2f}" for each in memory) or "-",
                number(row.get("share_of_matrix_rate"), 3),
                *(number(inverse(row["update_s"].get(each))) for each in names),
                number(inverse(train.get("seconds_per_iteration"))),
                number(train.get("data_wait_share")),
                number(row["predict"]["voxels_per_second"] / 1e6) if "predict" in row else "-",
                f"{number(together.get('validation_dice'), 3)} ({together.get('iteration', '-')})",
            ]
        )
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    facts = {key: value for key, value in known.items() if key != "self_test"}
    findings = [each for found in (known.get("self_test") or {}).values() for each in found]
    not_right = [
        f"{each['check']} {each['status']}: {each['detail']}" for each in findings if each["status"] != "right"
    ]
    paragraphs = [
        "Memory and speed on this device",
        table,
        "Planned memory includes the memory of CUDA itself, that of tensors does not. Dice is that of validation "
        "windows after the training of three configurations at the same time. Missing measurements are shown as -.",
        f"Checks of the self-test: {len(findings)}; not right: {'; '.join(not_right) or 'none'}.",
        f"Not done for lack of time: {', '.join(skipped) or 'nothing'}.",
        "```json\n" + json.dumps(facts, indent=2) + "\n```",
    ]
    return "\n\n".join(paragraphs) + "\n"


def number(value: float | None, digits: int = 2) -> str:
    """Format a number with this many digits, or `-` for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def inverse(value: float | None) -> float | None:
    """One divided by the number; None for None and for 0."""
    return 1 / value if value else None

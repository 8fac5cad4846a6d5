"""Non-local STAPLE on made-up raters: seconds on one thread, and which agreed voxels should count.

OMP_NUM_THREADS=1 python benchmarks/nonlocal_staple.py

Seconds: three raters, one class, each voxel of a cube wrong with probability 0.2, so that half of all are disputed.
Dice: a bumpy ball of 36^3 voxels whose surface each rater moves by a smooth random amount (standard deviations and
shifts below, in voxels); mean over seeds of majority voting, STAPLE, and non-local STAPLE with margins of agreed
voxels.
"""

import argparse
import resource
import time

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from seg25d.ensembling.fuse import majority_vote
from seg25d.ensembling.nonlocal_staple import NonlocalStapleSettings, nonlocal_staple
from seg25d.ensembling.staple import staple

RATERS = {
    "all alike": ((1.5, 0), (1.5, 0), (1.5, 0)),
    "one bad": ((0.7, 0), (0.7, 0), (3, 0)),
    "one too large": ((1, 0), (1, 0), (1, 2)),
    "one good": ((0.3, 0), (2.5, 0), (2.5, 0)),
}
MARGINS = (0, 1, 2, 3, 5, 8)


def ball(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Voxels from the surface of a bumpy ball, above 0 inside."""
    centred = np.indices((size,) * 3) - (size - 1) / 2
    return 0.28 * size - np.sqrt((centred**2).sum(axis=0)) + bumps(size, 3, rng)


def bumps(size: int, width: float, rng: np.random.Generator) -> NDArray[np.float64]:
    field = gaussian_filter(rng.normal(size=(size,) * 3), width)
    return field / field.std()


def seconds(size: int) -> tuple[float, float]:
    """CPU seconds for a cube, and the peak memory of the process in MiB."""
    rng = np.random.default_rng(0)
    truth = ball(size, rng) > 0
    raters = [(truth ^ (rng.random(truth.shape) < 0.2)).astype(np.uint8) for _ in range(3)]
    image = truth + rng.normal(0, 0.3, truth.shape)
    begun = time.process_time()
    nonlocal_staple(raters, image)
    return time.process_time() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def dice_by_fusion(name: str, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    distance = ball(36, rng)
    truth = distance > 0
    image = truth + rng.normal(0, 0.3, truth.shape)
    raters = [(distance + moved * bumps(36, 2, rng) + shift > 0).astype(np.uint8) for moved, shift in RATERS[name]]
    fused = {"majority": majority_vote(raters), "staple": staple(raters)}
    for margin in MARGINS:
        settings = NonlocalStapleSettings(agreed_margin=margin)
        fused[f"margin {margin}"] = nonlocal_staple(raters, image, settings)
    fused["all agreed"] = nonlocal_staple(raters, image, NonlocalStapleSettings(consensus=None))
    return {way: 2 * (each & truth).sum() / (each.sum() + truth.sum()) for way, each in fused.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    spent, peak = seconds(arguments.size)
    print(f"{arguments.size}^3 voxels: {spent:.1f} s of CPU time, {peak:.0f} MiB at most")
    for name in RATERS:
        rows = [dice_by_fusion(name, seed) for seed in range(arguments.seeds)]
        means = {way: float(np.mean([row[way] for row in rows])) for way in rows[0]}
        print(f"{name:14}", " ".join(f"{way} {mean:.3f}" for way, mean in means.items()), flush=True)


if __name__ == "__main__":
    main()

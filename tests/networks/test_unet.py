"""The U-Net: sizes of outputs, and settings that make no sense; for counts see test_paper_unets.py."""

import pytest
import torch
from pydantic import ValidationError

from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning.memory import prediction_memory


def spec(dims: int, widths: tuple[int, ...], **settings: object) -> UNetSpec:
    stages = len(widths)
    return UNetSpec.model_validate(
        {
            "widths": widths,
            "strides": ((1,) * dims, *(((2,) * dims,) * (stages - 1))),
            "kernels": ((3,) * dims,) * stages,
            **settings,
        }
    )


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("upsampling", ["transposed", "transposed_3"])
def test_scores_have_the_size_of_the_input(dims: int, residual: bool, upsampling: str) -> None:
    network = spec(dims, (4, 6, 8), residual=residual, upsampling=upsampling, num_supervised=2).build(2, 3)
    images = torch.rand(2, 2, *(8, 12, 4)[:dims])
    outputs = network.train()(images)
    assert [scores.shape[2:] for scores, _ in outputs] == [images.shape[2:], tuple(s // 2 for s in images.shape[2:])]
    assert [weight for _, weight in outputs] == pytest.approx([2 / 3, 1 / 3])
    assert network.eval()(images).shape == (2, 3, *images.shape[2:])


def test_anisotropic_strides_and_kernels() -> None:
    network = UNetSpec(
        widths=(4, 4, 8), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3))
    )
    assert network.divisor == (2, 4, 4)
    assert network.build(1, 2).eval()(torch.rand(1, 1, 2, 8, 4)).shape == (1, 2, 2, 8, 4)


def test_one_stage_is_a_network_too() -> None:
    assert spec(2, (4,)).build(1, 2).eval()(torch.rand(1, 1, 5, 5)).shape == (1, 2, 5, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (4, 8)}, "one entry per stage"),
        ({"strides": ((2, 2), (2, 2), (2, 2))}, "first stride"),
        ({"kernels": ((3, 3), (3, 3), (2, 2))}, "odd"),
        ({"kernels": ((3, 3), (3, 3), (3, 3, 3))}, "axes"),
        ({"num_supervised": 3}, "num_supervised"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        UNetSpec.model_validate(spec(2, (4, 8, 16)).model_dump() | change)


def test_prediction_keeps_nothing_that_is_done_with() -> None:
    """By hand, in feature maps of the finest stage: most where both halves of the input of its decoder become one."""
    size = 128
    network = spec(2, (4, 4))
    peak = prediction_memory(lambda: network.build(1, 1), (1, 1, size, size)) / (4 * 4 * size**2)
    image, coarse, upsampled, skipped, both = 1 / 4, 1 / 4, 1, 1, 2
    assert peak == pytest.approx(image + coarse + upsampled + skipped + both, abs=0.1)

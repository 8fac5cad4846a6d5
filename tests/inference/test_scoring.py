from contextlib import nullcontext

import pytest
import torch

from seg25d.inference import scoring
from seg25d.inference.scoring import scores_in_parts
from seg25d.inference.sliding_window import WindowOptions, predict_slabs
from seg25d.networks.specs.se_unet import SEUNetSpec
from seg25d.networks.specs.unet import UNetSpec
from seg25d.networks.specs.vnet import VNetSpec
from seg25d.representations.slices import Slices
from seg25d.representations.stack import Stack
from seg25d.representations.super_image import SuperImage
from seg25d.representations.volume import Volume

pytestmark = pytest.mark.processor


def unet(dims):
    return UNetSpec(widths=(4, 8), strides=((1,) * dims, (2,) * dims), kernels=((3,) * dims,) * 2)


def se_unet(dims):
    return SEUNetSpec(width=4, strides=((1,) * dims, (2,) * dims), kernels=((3,) * dims,) * 2, reduction=2)


MODELS = [
    (Volume(), unet(3), 1),
    (Stack(stack_size=10), se_unet(3), 1),
    (Slices(axis=0), unet(2), 1),
    (Slices(axis=2, context=1), unet(2), 3),
    (SuperImage(grid=(3, 4), axis=1), unet(2), 1),
]


def make(representation, spec, channels, num_outputs=5):
    torch.manual_seed(0)
    return representation.lift(spec.build(channels, num_outputs)).eval()


@pytest.mark.parametrize("autocast", [nullcontext(), torch.autocast("cpu", torch.bfloat16)])
@pytest.mark.parametrize(("representation", "spec", "channels"), MODELS)
def test_parts_are_the_scores(representation, spec, channels, autocast, monkeypatch):
    model, images = make(representation, spec, channels), torch.randn(2, 1, 10, 12, 8)
    with torch.inference_mode():
        ((first, whole),) = scores_in_parts(model, images, 5, autocast)
        assert (first, whole.shape) == (0, (2, 5, 10, 12, 8))
        # 3 planes of 2 x 5 x 12 x 8 numbers
        monkeypatch.setattr(scoring, "SCORES_BYTES", 3 * 4 * 2 * 5 * 12 * 8)
        parts = list(scores_in_parts(model, images, 5, autocast))
        ((_, again),) = [(0, model(images))] if isinstance(autocast, nullcontext) else [(0, whole)]
    assert [first for first, _ in parts] == [0, 3, 6, 9]
    torch.testing.assert_close(torch.cat([part for _, part in parts], 2), whole, rtol=1e-5, atol=1e-5)
    # The layer is in its place again.
    torch.testing.assert_close(again, whole)


def vnet(kernel, width=2):
    return VNetSpec(
        widths=(width, 4),
        strides=((1, 1, 1), (2, 2, 2)),
        kernels=(kernel, (3, 3, 3)),
        encoder_blocks=(1, 1),
        decoder_blocks=(1,),
    )


@pytest.mark.parametrize("autocast", [nullcontext(), torch.autocast("cpu", torch.bfloat16)])
@pytest.mark.parametrize(("kernel", "starts"), [((1, 3, 3), [0, 3, 6, 9]), ((3, 3, 3), [0, 4, 8]), ((5, 3, 1), [0, 8])])
def test_a_head_that_sees_neighbouring_planes_gets_them(kernel, starts, autocast, monkeypatch):
    """There are planes before the first, after the last, and beside each part that zeros would be taken for."""
    model, images = make(Stack(stack_size=10), vnet(kernel), 1), torch.randn(2, 1, 10, 12, 8)
    with torch.inference_mode():
        ((_, whole),) = scores_in_parts(model, images, 5, autocast)
        monkeypatch.setattr(scoring, "SCORES_BYTES", 3 * 4 * 2 * 5 * 12 * 8)
        parts = list(scores_in_parts(model, images, 5, autocast))
    assert [first for first, _ in parts] == starts
    tolerance = 1e-5 if isinstance(autocast, nullcontext) else 2e-2
    torch.testing.assert_close(torch.cat([part for _, part in parts], 2), whole, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mirror_axes", [(), (0, 2)])
def test_volumes_are_predicted_alike(mirror_axes, monkeypatch):
    model, image = make(*MODELS[0]), torch.randn(1, 19, 12, 9)
    options = WindowOptions((10, 8, 8), mirror_axes=mirror_axes, batch_size=2)

    def predict():
        return torch.cat([slab.planes.clone() for slab in predict_slabs([model], image, 5, options)])

    whole = predict()
    monkeypatch.setattr(scoring, "SCORES_BYTES", 3 * 4 * 2 * 5 * 8 * 8)
    torch.testing.assert_close(predict(), whole, rtol=1e-5, atol=1e-5)


def test_other_models_give_their_scores_at_once(monkeypatch):
    monkeypatch.setattr(scoring, "SCORES_BYTES", 1)
    model, images = make(Volume(), vnet((3, 3, 3), width=4), 1), torch.randn(1, 1, 4, 4, 4)
    with torch.inference_mode():
        ((first, scores),) = scores_in_parts(model, images, 5, nullcontext())
        assert first == 0
        assert torch.equal(scores, model(images))


def test_the_layer_is_put_back_when_a_model_fails(monkeypatch):
    monkeypatch.setattr(scoring, "SCORES_BYTES", 1)
    model = make(*MODELS[0])
    layer = model.heads[0]
    with pytest.raises(RuntimeError):
        list(scores_in_parts(model, torch.randn(1, 2, 4, 4, 4), 5, nullcontext()))
    assert model.heads[0] is layer

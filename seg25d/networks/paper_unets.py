"""The plain U-Nets of two of the papers, as settings of the U-Net."""

from typing import Any

from seg25d.networks.specs.unet import UNetSpec


def super_image_unet(dims: int) -> UNetSpec:
    """The "vanilla" U-Net of Sobirov et al. 2022 (methods 1.2; BaselineUNet of iantsen/hecktor, src/models.py).

    Parameters with 2 channels in and 1 out: 1,205,425 in 2D and 3,611,665 in 3D, three times as many.

    Args:
        dims: 2 or 3.
    """
    return _max_pool_unet(dims, (24, 48, 96, 192))


def half_unet(dims: int) -> UNetSpec:
    """The U-Nets of Angermann & Haltmeier 2019, half as wide as Ronneberger's or less, without norm (methods 3.6).

    Glorot's initialisation, Keras' default (the paper names none). Parameters with 1 channel in and out: 8,629,921 in
    2D and 1,618,489 in 3D, their 8.6 and 1.6 M.

    Args:
        dims: 2 or 3.
    """
    base = {2: 32, 3: 8}[dims]
    widths = tuple(base * 2**stage for stage in range(5))
    return _max_pool_unet(dims, widths, norm="none", conv_bias=True, initialisation="glorot")


def _max_pool_unet(dims: int, widths: tuple[int, ...], **settings: Any) -> UNetSpec:
    return UNetSpec(
        widths=widths,
        strides=((1,) * dims, *((2,) * dims for _ in widths[1:])),
        kernels=((3,) * dims,) * len(widths),
        activation="relu",
        downsampling="max_pool",
        upsampling="transposed_3",
        **settings,
    )

"""Weights of torchvision's ResNets, from a file of the user, for the encoder of `resnet_unet`."""

import pickle
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from seg25d.core.errors import ModelError
from seg25d.core.system_errors import refusal_to_read
from seg25d.core.weights import check_finite
from seg25d.networks.resnet_unet import ResNetUNet

FIRST = "conv1.weight"
"""The one weight whose shape depends on the number of channels."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Buffers that batch norm has and instance norm does not."""
PUBLISHED_DEPTHS = (18, 34, 50, 101, 152)
"""He et al. 2016, Table 1."""
NUM_LISTED = 3
"""Maximum number of names that an error lists."""


class TakenOver(NamedTuple):
    """Names of the weights of a file, by how the encoder uses them."""

    taken: tuple[str, ...]
    """Weights that were taken as they are in the file."""
    adapted: tuple[str, ...]
    """Weights that were changed for another number of channels: the first convolution, or nothing."""
    ignored: tuple[str, ...]
    """Weights that are not used: the classifier, and batch norm's statistics where the network has instance norm."""


def adapt_first_convolution(weight: Tensor, num_channels: int) -> Tensor:
    """Adapt the kernel of a first convolution to another number of input channels.

    The sum over channels is divided evenly, so that equal channels give the same result as a grey image before: for one
    channel it is the sum over RGB (Sobirov et al. 2022, methods 1.2), for more the mean over RGB, scaled. A kernel that
    has the right number is not changed.

    Args:
        weight: (out_channels, channels, ...), with ImageNet's (64, 3, 7, 7).
        num_channels: Required number of channels, at least 1.

    Returns:
        (out_channels, num_channels, ...).
    """
    if weight.shape[1] == num_channels:
        return weight
    return weight.sum(1, keepdim=True).div(num_channels).repeat(1, num_channels, *(1 for _ in weight.shape[2:]))


def load_torchvision_encoder(network: ResNetUNet, state: Mapping[str, Tensor], path: Path) -> TakenOver:
    """Give the encoder of a network the weights of a torchvision ResNet of the same depth.

    Args:
        network: Its encoder is changed, its decoder is not. After an error neither is.
        state: Weights by torchvision's names (see `read_state_dict`), with or without `num_batches_tracked` (PyTorch
            before 0.4.1) and a classifier.
        path: Where they come from, for messages.

    Raises:
        ModelError: If they do not fit; the message names the file and says what to do.
    """
    wanted = network.encoder.state_dict()
    parts = {name.split(".")[0] for name in wanted}
    ours = {name: weight for name, weight in state.items() if name.split(".")[0] in parts}
    if network.spec.norm == "instance":
        ours = {name: weight for name, weight in ours.items() if not name.endswith(STATISTICS)}
    _check_names(ours, wanted, network.spec.depth, state, path)
    _check_shapes(ours, wanted, path)
    first = adapt_first_convolution(ours[FIRST], wanted[FIRST].shape[1])
    adapted = (FIRST,) if first is not ours[FIRST] else ()
    # Not strict, as counters of batches may be absent; the names have been checked.
    network.encoder.load_state_dict({**ours, FIRST: first}, strict=False)
    return TakenOver(
        taken=tuple(name for name in ours if name not in adapted),
        adapted=adapted,
        ignored=tuple(name for name in state if name not in ours),
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a file of the user; code in the file is never run.

    Args:
        path: A `.safetensors` file; with any other ending, a file of `torch.save`.

    Returns:
        The tensors on the CPU.

    Raises:
        ModelError: If the file is missing or damaged, or holds anything else; the message says what to do.
    """
    if not path.is_file():
        raise ModelError(f"{path} is not a file; give a file with weights, such as torchvision's resnet34 (.pth)")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_saved(path)
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        held = f"a dictionary with {_list_names(state)}" if isinstance(state, Mapping) else f"a {type(state).__name__}"
        raise ModelError(
            f"{path} holds {held}, wanted a state dict, that is tensors by name such as {FIRST}; "
            "save that part alone, with torch.save(model.state_dict(), FILE)"
        )
    check_finite(path, state)
    return dict(state)


def _read_safetensors(path: Path) -> object:
    from safetensors import SafetensorError  # noqa: PLC0415 - only where such a file is read
    from safetensors.torch import load_file  # noqa: PLC0415

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise refusal_to_read(error, path) or ModelError(
            f"{path} is damaged or not a safetensors file ({error}); copy it again"
        ) from None


def _read_saved(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            # torch's warning about files of other programs; the error below says it better.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path} is not a file of torch.save, or holds objects that could run code, such as a whole model, and is "
            "not opened for that; save the weights alone, with torch.save(model.state_dict(), FILE)"
        ) from None
    except Exception as error:
        # Damaged files fail anywhere within the reader: as RuntimeError, EOFError, KeyError, AssertionError and more.
        reason = (str(error).splitlines() or [""])[0]
        raise refusal_to_read(error, path) or ModelError(
            f"{path} is damaged or not a file of torch.save ({type(error).__name__} {reason}); copy it again"
        ) from None


def _check_names(
    ours: Collection[str], wanted: Mapping[str, Tensor], depth: int, names: Collection[str], path: Path
) -> None:
    """Check that a file has all weights of the encoder, and no others in the encoder's parts."""
    seen = _depth_of(ours)
    if seen in PUBLISHED_DEPTHS and seen != depth:
        raise ModelError(
            f"{path} looks like a ResNet-{seen} and the network has depth {depth}; give weights of a ResNet-{depth}"
            + (f", or set network.depth to {seen} in plans.json" if seen in (18, 34, 50) else "")
        )
    missing = [name for name in wanted if name not in ours and not name.endswith("num_batches_tracked")]
    if missing:
        raise ModelError(
            f"{path} lacks {len(missing)} of {len(wanted)} weights of a ResNet-{depth} ({_list_names(missing)}); it "
            f"has {_list_names(names)}; give a complete state dict with torchvision's names"
        )
    foreign = [name for name in ours if name not in wanted]
    if foreign:
        raise ModelError(
            f"{path} has weights that torchvision's ResNet-{depth} does not have ({_list_names(foreign)}): it is of "
            f"another kind of network; give weights of a plain ResNet-{depth}"
        )


def _check_shapes(ours: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Check the shapes of all weights; the first convolution may have any number of channels."""
    for name, weight in ours.items():
        has, wants = tuple(weight.shape), tuple(wanted[name].shape)
        if name == FIRST:
            wants = (*wants[:1], *has[1:2], *wants[2:])
        if has != wants:
            raise ModelError(
                f"{path}: {name} has shape {has}, wanted {wants}: it is of another kind of network; give weights of "
                "torchvision's plain ResNet of the same depth"
            )


def _depth_of(names: Collection[str]) -> int:
    """Count the layers of a ResNet, which give its name: those of its blocks, the first and the last."""
    blocks = {tuple(name.split(".")[:2]) for name in names if name.startswith("layer")}
    per_block = 3 if "layer1.0.conv3.weight" in names else 2
    return 2 + per_block * len(blocks)


def _list_names(names: Collection[object]) -> str:
    first = ", ".join(str(name) for name in list(names)[:NUM_LISTED])
    return f"{first}, ..." if len(names) > NUM_LISTED else first or "nothing"

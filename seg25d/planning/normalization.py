"""Normalisation of a channel's intensities, as stored in the plan."""

from typing import Literal

from seg25d.core.records import Record

Scheme = Literal["ct", "zscore", "rescale_0_1", "rgb_0_1", "none", "ct_window", "ct_window_dicom", "zscore_offset"]
RGB_MAXIMUM = 255
"""Largest value of a colour, by which `rgb_0_1` divides (nnU-Net, default_normalization_schemes.py)."""


class ChannelNormalization(Record):
    """Normalisation of the intensities of one channel to a common range.

    It is separate from the plan because the workers of preprocessing need it and must not load torch.
    """

    channel: str
    """The channel's name in dataset.json."""
    scheme: Scheme
    lower: float | None = None
    """Clip below this (`ct`: 0.5 percentile of the data set's foreground; `ct_window`: level - width / 2;
    `ct_window_dicom`: the same, for images whose header has no window)."""
    upper: float | None = None
    """Clip above this."""
    mean: float | None = None
    """`ct`: subtract the data set's foreground mean."""
    std: float | None = None
    """`ct`: divide by the data set's foreground standard deviation."""

    @property
    def is_complete(self) -> bool:
        """Whether all numbers are there that the scheme needs, and make sense."""
        if not self.scheme.startswith("ct"):
            return True
        lower, upper = self.lower, self.upper
        statistics = self.scheme != "ct" or (self.mean is not None and self.std is not None and self.std >= 0)
        return statistics and lower is not None and upper is not None and lower <= upper

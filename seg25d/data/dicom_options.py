"""What is accepted of DICOM series that are no regular volume; light, as commands make it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DicomOptions:
    """What is accepted of series that are no regular volume."""

    split_phases: bool = False
    """Make a volume of each phase where slices lie at the same places."""
    resample_tilt: bool = False
    """Shift slices within their planes where the gantry was tilted."""
    accept_gaps: bool = False
    """Interpolate slices between those that are there where they are missing or at unequal distances."""
    suv: bool = False
    """Turn the numbers of PET into standardised uptake values by body weight."""

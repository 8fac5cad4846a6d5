"""`seg25d train` without the timing of updates before it and the prediction of the validation cases at its end.

    python benchmarks/updates_alone.py 4 2d 0 --iterations 3 --set validation_windows=1

The arguments are those of `seg25d train`. clinical_size.py runs it.
"""

import sys
from unittest import mock

from seg25d.cli.main import main
from seg25d.workflows import coarse_to_fine, folds

if __name__ == "__main__":
    with mock.patch.object(coarse_to_fine, "announce_folds"), mock.patch.object(folds, "score_fold", return_value=None):
        sys.exit(main(["train", *sys.argv[1:]]))

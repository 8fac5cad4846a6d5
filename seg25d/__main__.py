"""`python -m seg25d VERB ...`: the same as `seg25d VERB ...`."""

import sys

from seg25d.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

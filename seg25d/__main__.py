"""`python -m seg25d VERB ...`: the same as `seg25d VERB ...`."""

from seg25d.cli.main import script

if __name__ == "__main__":
    script()

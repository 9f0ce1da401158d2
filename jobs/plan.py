"""``python -m jobs.plan``, the same as ``dbf plan``."""

import sys

from dbf_ray.cli.plan import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m jobs.plan"))

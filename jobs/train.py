"""``python -m jobs.train``, the same as ``dbf train``."""

import sys

from dbf_ray.cli.train import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m jobs.train"))

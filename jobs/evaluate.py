"""``python -m jobs.evaluate``, the same as ``dbf evaluate``."""

import sys

from dbf_ray.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m jobs.evaluate"))

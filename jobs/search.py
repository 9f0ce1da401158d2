"""``python -m jobs.search``, the same as ``dbf search``."""

import sys

from dbf_ray.cli.search import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m jobs.search"))

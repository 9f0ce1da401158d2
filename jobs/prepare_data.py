"""``python -m jobs.prepare_data``, the same as ``dbf prepare-data``."""

import sys

from dbf_ray.cli.prepare_data import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m jobs.prepare_data"))

"""``python -m jobs.fetch_weights``, the same as ``dbf fetch-weights``."""

import sys

from dbf_ray.cli.fetch_weights import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m jobs.fetch_weights"))

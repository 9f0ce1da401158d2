"""``python -m jobs.demo``, the same as ``dbf demo``."""

import sys

from dbf_ray.cli.demo import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m jobs.demo"))

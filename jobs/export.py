"""``python -m jobs.export``, the same as ``dbf export``."""

import sys

from dbf_ray.cli.export import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m jobs.export"))

"""``python -m jobs.compare``, the same as ``dbf compare``."""

import sys

from dbf_ray.cli.compare import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m jobs.compare"))

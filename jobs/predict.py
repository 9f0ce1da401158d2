"""``python -m jobs.predict``, the same as ``dbf predict``."""

import sys

from dbf_ray.cli.predict import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m jobs.predict"))

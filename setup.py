"""What pyproject.toml cannot say: what is shipped goes into a wheel.

Configurations and search spaces stand in the repository's jobs/configs and search_spaces; a wheel gets copies
of them inside the package, where dbf_ray/shipped.py finds them.
"""

import atexit
import shutil
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = {"configs": "jobs/configs/*.yaml", "search_spaces": "search_spaces/*.py"}


class BuildPy(build_py):
    """Copies what is shipped; an editable install finds it in the repository."""

    def run(self) -> None:
        """See setuptools."""
        super().run()
        if self.editable_mode:
            return
        for folder, pattern in SHIPPED.items():
            target = Path(self.build_lib) / "dbf_ray" / "shipped_files" / folder
            target.mkdir(parents=True, exist_ok=True)
            for file in ROOT.glob(pattern):
                shutil.copy(file, target)


# Built in a folder of its own: what an earlier version left in build/ would go into the wheel too.
build_base = tempfile.mkdtemp(prefix="dbf-ray-build-")
atexit.register(shutil.rmtree, build_base, ignore_errors=True)
setup(cmdclass={"build_py": BuildPy}, options={"build": {"build_base": build_base}})

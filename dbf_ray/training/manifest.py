"""Which checkpoints are whole: a manifest of sizes and sha256, written last, says what their files must
be.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from dbf_ray.files import flush, sha256, write_json

MANIFEST = "manifest.json"
FILES = ("checkpoint.pt", "record.json")
Entry = tuple[int, str]  # bytes, sha256


def seal(folder: Path) -> None:
    """Write the manifest of a checkpoint's files as they are now, once they are on the disk."""
    files = {}
    for name in FILES:
        flush(folder / name)
        files[name] = {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
    write_json(folder / MANIFEST, {"files": files})
    flush(folder)


def fault_of(folder: Path, contents: bool = True) -> str | None:
    """What is wrong with a checkpoint folder, in words; None if it is whole.

    Args:
        folder: the checkpoint.
        contents: compare the files' sha256 too, which reads them; False: only their sizes.
    """
    try:
        entries = _entries(folder)
        for name, (size, _) in entries.items():
            if (found := (folder / name).stat().st_size) != size:
                return f"{name} has {found} bytes, {size} were written"
        for name, (_, digest) in entries.items() if contents else ():
            if sha256(folder / name) != digest:
                return f"{name} is not what was written, its sha256 differs"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except OSError as error:
        return f"{Path(str(error.filename)).name} cannot be read: {error.strerror or error}"
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return f"{MANIFEST} cannot be read"
    return None


def digest_of(folder: Path) -> str:
    """One sha256 of all files of a whole checkpoint, from its manifest."""
    digest = hashlib.sha256()
    for _, of_file in _entries(folder).values():
        digest.update(bytes.fromhex(of_file))
    return digest.hexdigest()


def _entries(folder: Path) -> dict[str, Entry]:
    found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    return {name: (int(found[name]["bytes"]), str(found[name]["sha256"])) for name in FILES}

"""URLs of sqlite files, for paths of any signs: in a URL "?" begins the options, and "%" a code."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

from dbf_ray.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import URL  # comes with Optuna and MLflow, which a training can do without

_BEGIN = re.compile(r"sqlite(\+\w+)?:///")


def is_sqlite(url: str) -> bool:
    """Whether this is the URL of a sqlite file."""
    return _BEGIN.match(url) is not None


def sqlite_url(file: Path) -> str:
    """The URL by which SQLAlchemy, and so Optuna and MLflow, opens ``file``."""
    from sqlalchemy import URL

    path = str(file)
    try:
        path.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8, which sqlite's own URIs can hold
        path = "file:" + quote(os.fsencode(path))
        return _rendered(URL.create("sqlite", database=path, query={"uri": "true"}))
    return _rendered(URL.create("sqlite", database=path))


def absolute(url: str) -> str:
    """``url`` of a sqlite file with an absolute path; its options stay.

    Raises:
        ConfigError: what follows "?" is no option: it is the rest of a path; or the file is a folder.
    """
    from sqlalchemy import make_url

    made = make_url(url)
    options = url.partition("?")[2]
    if options and not all(re.match(r"\w+=", option) for option in options.split("&")):
        raise ConfigError(
            f"`uri` must be a URL, in which '?' begins options, got {url}; write %3F for a '?' of the path"
        )
    if made.query.get("uri") == "true":
        return url
    file = Path(made.database or "").absolute()
    if file.is_dir():  # MLflow would try for minutes to open it
        raise ConfigError(
            f"`uri` must name a file, got the folder {file} (by {url}); give a file in it, as sqlite:///mlflow.db"
        )
    return _rendered(made.set(database=str(file)))


def sqlite_file(url: str) -> Path | None:
    """The file of such a URL, None if it is of another kind."""
    if not is_sqlite(url):
        return None
    from sqlalchemy import make_url

    made = make_url(url)
    path = made.database or ""
    if made.query.get("uri") == "true":
        path = os.fsdecode(unquote_to_bytes(path.removeprefix("file:")))
    return Path(path)


def _rendered(url: URL) -> str:
    """As text. MLflow makes the folder of what follows ``sqlite:///``, as it stands there: so not where signs
    of the path are codes.
    """
    text = url.render_as_string(hide_password=False)
    if text.startswith(f"sqlite:///{url.database}"):
        return text
    return url.set(drivername="sqlite+pysqlite").render_as_string(hide_password=False)

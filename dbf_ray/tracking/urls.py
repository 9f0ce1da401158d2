"""URLs of sqlite files, for paths of any signs: in a URL "?" begins the options, and "%" a code."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

PREFIX = "sqlite:///"


def sqlite_url(file: Path) -> str:
    """The URL that SQLAlchemy, and so Optuna and MLflow, opens ``file`` by."""
    from sqlalchemy import URL  # comes with Optuna and MLflow, which a training can do without

    path = str(file)
    try:
        path.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8, which sqlite's own URIs can hold
        uri = URL.create("sqlite", database="file:" + quote(os.fsencode(path)), query={"uri": "true"})
        return uri.render_as_string(hide_password=False)
    return URL.create("sqlite", database=path).render_as_string(hide_password=False)


def absolute(url: str) -> str:
    """``url`` of a sqlite file with an absolute path, its options kept."""
    from sqlalchemy import make_url

    made = make_url(url)
    if made.query.get("uri") == "true":
        return url
    return made.set(database=str(Path(made.database or "").absolute())).render_as_string(hide_password=False)


def sqlite_file(url: str) -> Path | None:
    """The file of such a URL, None if it is of another kind."""
    if not url.startswith(PREFIX):
        return None
    from sqlalchemy import make_url

    made = make_url(url)
    path = made.database or ""
    if made.query.get("uri") == "true":
        path = os.fsdecode(unquote_to_bytes(path.removeprefix("file:")))
    return Path(path)

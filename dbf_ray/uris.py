"""Addresses with a user and a password in them, which no record may hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

_USER = re.compile(r"^([\w+.-]+://)[^/?#]*@")
_SECRET = re.compile(r"([?&;][^=&;#]*(?:password|passwd|secret|token)[^=&;#]*=)[^&;#]*", re.IGNORECASE)


def public(uri: str) -> str:
    """The URI without user and password; what its options call a password, a secret or a token is empty."""
    return _SECRET.sub(r"\1", _USER.sub(r"\1", uri))


def hidden(text: str, uri: str) -> str:
    """``text`` without what is secret in ``uri``, wherever it speaks of it."""
    user, sign, _ = urlsplit(uri).netloc.rpartition("@")
    text = text.replace(uri, public(uri))
    return text.replace(user + sign, "") if sign else text


def with_password(uri: str | None, environment: Mapping[str, str], name: str) -> str | None:
    """A URI that a record has, with the user and password of the same one in the variable ``name``; any other
    as it is.
    """
    known = environment.get(name)
    return known if uri and known and known != uri and public(known) == uri else uri

"""A to-do list of calls to a store that may be away, slow, or refuse what it is told: whatever happens, a
training goes on.

What fails stays on the list, is said once as a warning, and is tried again with the next call (after two
failures in a row only at the end). What the store refuses as invalid would be refused again, and hold up all
that follows: it is left out, with a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from urllib.parse import urlsplit

TRIES_IN_A_ROW = 2
REFUSED = "INVALID_PARAMETER_VALUE"  # MLflow's error code


class ToDoList:
    """Calls to the store at ``uri``, done in order; ``comfort`` ends each warning with what is not lost."""

    def __init__(self, uri: str, comfort: str) -> None:
        self._todo: list[tuple[Callable[[], None], bool]] = []
        self._uri, self._comfort = uri, comfort
        self._failed_in_a_row = 0
        self._warned: set[str] = set()

    def do(self, *tasks: Callable[[], None], last: bool = False, vital: bool = False) -> None:
        """Put ``tasks`` on the list and do what is on it.

        Args:
            tasks: what to do, in order.
            last: do it even after failures in a row.
            vital: what follows needs these: they are not left out.
        """
        self._todo.extend((task, vital) for task in tasks)
        if self._failed_in_a_row >= TRIES_IN_A_ROW and not last:
            return
        try:
            while self._todo:
                self._do_first()
            self._failed_in_a_row = 0
        except Exception as error:  # whatever it is, it must not end a training
            self._failed_in_a_row += 1
            self._warn("cannot be used", error)

    def _do_first(self) -> None:
        task, vital = self._todo[0]
        try:
            task()
        except Exception as error:
            if vital or getattr(error, "error_code", None) != REFUSED:
                raise
            self._warn("refused a part of the record, which it will lack", error)
        self._todo.pop(0)

    def _warn(self, what: str, error: Exception) -> None:
        if what in self._warned:
            return
        self._warned.add(what)
        reason = " ".join(str(error).split()).replace(_secret(self._uri), "")[:300]
        warnings.warn(
            f"MLflow at {public(self._uri)} {what} ({type(error).__name__}: {reason}); {self._comfort}",
            stacklevel=4,
        )


def public(uri: str) -> str:
    """The URI without user and password."""
    return uri.replace(_secret(uri), "", 1)


def _secret(uri: str) -> str:
    """User and password with the sign that follows them; empty if there are none."""
    before, sign, _ = urlsplit(uri).netloc.rpartition("@")
    return before + sign

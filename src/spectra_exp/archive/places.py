"""Texts without the places and names of the machine that they come from."""

from __future__ import annotations

import getpass
import re
import socket
from functools import cache

from spectra_exp.foundations.files import short_path

# A path from the root: what stands before it is no part of a path or of a web address.
ABSOLUTE = re.compile(r"(?<![\w./~:-])~?/(?:[^\s/'\"`,;:=()\[\]{}<>|]+/)*[^\s/'\"`,;:=()\[\]{}<>|]+/?")
REMOVED = "..."


def without_places(text: str) -> str:
    """The text with each absolute path cut to `short_path`."""
    return ABSOLUTE.sub(lambda found: short_path(found[0]), text.replace("file://", ""))


def without_names(text: str) -> str:
    """The same, and the names of this machine and of its user taken out: for texts that other programs wrote."""
    return re.sub(rf"\b({'|'.join(map(re.escape, own_names()))})\b", REMOVED, without_places(text))


@cache
def own_names() -> tuple[str, ...]:
    """What this machine and its user are called."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        # No name belongs to the user's number.
        user = ""
    host = socket.gethostname()
    return tuple(name for name in dict.fromkeys([host, host.partition(".")[0], user]) if name)

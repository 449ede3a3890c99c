"""Who else may read a secret or change a rule, by the mode of its file, and the command that ends it.

Judges the file that is open, not its name a second time. Must never read content.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from shlex import quote

Loose = tuple[str, str]
"""What is wrong, and the command that mends it."""


def loose_secret(path: Path, found: os.stat_result) -> Loose | None:
    """What is wrong with the mode of a secret's file; None when nothing is.

    Its owner may read it, and one group: the relay's own, or the one that root gave the file to (`root:callpro-relay`,
    mode 0640, is how Debian's administrators lend a secret to a service).
    """
    mode = found.st_mode
    ours = found.st_gid in {os.getegid(), *os.getgroups()}
    if mode & stat.S_IRWXO:
        whom, read = "everybody", mode & stat.S_IROTH
    elif mode & stat.S_IWGRP or (mode & stat.S_IRGRP and not ours and found.st_uid != 0):
        whom, read = f"group {found.st_gid}", mode & stat.S_IRGRP
    else:
        return None
    return f"{path} can be {'read' if read else 'changed'} by {whom}", _mend(path, found, ours)


def _mend(path: Path, found: os.stat_result, ours: bool) -> str:
    """Behind it the relay can still read the file, as its owner or by its group."""
    name = quote(str(path))
    if os.geteuid() == found.st_uid:
        lent = found.st_uid == 0 and found.st_gid != 0
        return f"run: chmod {'640' if lent else '600'} {name}"
    return f"run: {'' if ours else f'chgrp {os.getegid()} {name} && '}chmod 640 {name}"


def loose_rules(path: Path, found: os.stat_result) -> Loose | None:
    """The same for a file that says where mail goes, or the folder of such files, where anybody could add one:
    everybody may read it, its group may write.
    """
    if not found.st_mode & stat.S_IWOTH:
        return None
    return "can be changed by everybody on this machine", f"run: chmod o-w {quote(str(path))}"

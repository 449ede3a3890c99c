"""The parser of the command line: argparse, which also says what a slip of the pen may have meant."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

AT_NIGHT = """\
when mail does not arrive:
  callpro-relay queue list                        what waits, and why
  callpro-relay queue find --to jan@example.nl    what became of mail to somebody
  callpro-relay queue show ID                     the story of one mail, with every reply
  callpro-relay queue holds                       what is on hold, why, and how it ends
  callpro-relay route info@acme.nl                where a sender's mail goes
  callpro-relay doctor acme.nl                    what is wrong with a customer's way out

Every command has --help, and `man callpro-relay` has them all.
"""
_INVALID = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)$")


class CommandParser(argparse.ArgumentParser):
    """Subcommands made from it are of this class too."""

    def error(self, message: str) -> NoReturn:
        """As argparse, with the nearest word there is. Exit 2."""
        found = _INVALID.search(message)
        if found:
            import difflib  # rarely needed, and serve would carry it for ever

            near = difflib.get_close_matches(found[1], re.findall(r"'([^']*)'", found[2]), 1)
            if near:
                message = f"{message[: found.start()]}there is no {found[1]!r}; did you mean {near[0]}?"
        super().error(message)

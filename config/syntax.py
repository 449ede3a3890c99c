"""What the YAML parser complains about, in the words of the person who wrote the file.

Must never quote the line: it may hold a secret.
"""

from __future__ import annotations

import yaml


def explain(error: yaml.YAMLError, text: str) -> tuple[int, str, str]:
    """The line (from 1), what is wrong and the mend."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        position = getattr(error, "position", 0)
        line = text.encode("utf-8")[:position].count(b"\n") + 1
        return line, "holds a control character", "remove it, or retype the line"
    said = str(getattr(error, "problem", "") or "")
    doing = str(getattr(error, "context", "") or "")
    lines = text.splitlines()
    line_text = lines[mark.line] if mark.line < len(lines) else ""
    return mark.line + 1, *_explained(said, doing, line_text)


def _explained(said: str, doing: str, line_text: str) -> tuple[str, str]:
    if "\t" in line_text[: len(line_text) - len(line_text.lstrip())]:
        return "is indented with a tab", "use spaces"
    if "alias" in doing:
        return "a value begins with *", 'put it in quotes: "*.acme.nl"'
    if "anchor" in doing:
        return "a value begins with &", "put it in quotes"
    if "cannot start any token" in said:
        return "a value begins with a character that YAML keeps for itself", "put it in quotes"
    if "mapping values are not allowed" in said:
        return "`: ` stands where no key can be", "put the value in quotes, or mend the indentation"
    if "unknown escape" in said:
        return "a backslash in double quotes begins an escape that YAML does not know", "use single quotes"
    if "quoted scalar" in doing:
        return "a quote is opened and not closed", "close it"
    if "flow" in doing:
        return "a bracket is not closed, or a value in brackets needs quotes", 'check [ ] { }, and quote: "::1"'
    return "is not YAML from here", "check the indentation and the quotes, here and on the line above"

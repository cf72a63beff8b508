"""Prints rows for people: columns side by side, numbers to the right. Text from outside is shown so that it cannot move the cursor."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> str:
    """Return a table; `right` names the columns that are set to the right."""
    cells = [list(map(str, head)), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    to_right = {index for index, name in enumerate(head) if name in set(right)}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index in to_right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def plain(value: object) -> str:
    """Return a value as one line of printable text; None is a dash."""
    text = "-" if value is None else str(value)
    return text if text.isprintable() else ascii(text)[1:-1]


def csv_line(cells: Iterable[object]) -> str:
    """Return one line of CSV (RFC 4180) in which no text can start a formula.

    Source: https://owasp.org/www-community/attacks/CSV_Injection
    """
    return ",".join(_csv_cell(cell) for cell in cells)


def _csv_cell(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, int | float):
        return str(cell)
    text = str(cell)
    if text.lstrip()[:1] in ("=", "+", "-", "@") or text[:1] in ("\t", "\r", "\n"):
        text = "'" + text
    if any(mark in text for mark in ',"\r\n;\t') or text != text.strip():
        return '"' + text.replace('"', '""') + '"'
    return text

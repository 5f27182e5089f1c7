"""The report of a run of `ask` or `optimize`: every picture with what was asked, what was answered, and why.

It is made of the run's records, which may be those of earlier runs, too, and of what a `Collector` kept beside them. It
is written item by item; the page shows one item at a time, and of its list what is in sight.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from vlinstruct.errors import InputError, shortened
from vlinstruct.files import open_regular, written_atomically
from vlinstruct.operations import Fields
from vlinstruct.records.output import check_place
from vlinstruct.report.collected import Collector
from vlinstruct.report.shell import MARK, head, is_page, json_text, resource, tail, text

_ONCE = ("schema", "backbone", "revision", "key")  # what the page says once, or not at all

_MAX_TITLE = 200


def check_report(path: Path, output: Path | None = None) -> None:
    """Refuses a path that no report may be written to, before any work.

    Args:
        path: the report's.
        output: that of the records.

    Raises:
        InputError: it is a directory, in no folder, the records' own, or a file that is no page of ours (`output_*`).
    """
    name = os.fspath(path)
    try:
        check_place(name, () if output is None else [output])
        is_output = output is not None and os.path.realpath(output) == os.path.realpath(path)
        if os.path.exists(name) and not is_output:
            with open_regular(path, kind="data") as stream:
                beginning = stream.read(len(MARK.encode()))
            if beginning and not is_page(beginning):
                raise _refusal(name, "not_report", "the file exists and is no report")
    except ValueError as error:  # a NUL or a lone surrogate in the path
        raise _refusal(name, "bad_path", "the path holds a character no path can hold") from error
    if is_output:
        raise _refusal(name, "is_output", "it is the output of the records, too")


def _refusal(name: str, code: str, why: str) -> InputError:
    return InputError.at("cannot write report", name, why, "Name another file", code=f"output_{code}")


def write_report(path: Path, records: Callable[[], Iterable[Fields]], collector: Collector) -> None:
    """Writes the report, whole or not at all.

    Args:
        path: where to; `check_report` has looked at it.
        records: yields the records, in order; called more than once.
        collector: what the run left beside them; an item of an earlier run has nothing there.

    Raises:
        ResourceError: it cannot be written.
    """
    target = Path(os.path.realpath(path))  # what replaces a file must not replace the link that leads to it
    with written_atomically(target) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as stream:
        _write(stream, records, collector)


def _write(stream: IO[str], records: Callable[[], Iterable[Fields]], collector: Collector) -> None:
    script = resource("page.js")
    ids, title, facts = _summary(records())
    stream.write(head(title, styles=[resource("page.css")], scripts=[script]))
    stream.write(resource("page.html").format(title=text(title), facts=text(facts)))
    # In lines, so that the page reads what is large, pictures and maps, of the items alone that somebody looks at.
    blocks: dict[str, Iterator[object]] = {
        "items": ([_shown(record), collector.of("details", record["id"])] for record in records()),
        "previews": (collector.of("preview", id) for id in ids),
        "maps": (collector.of("maps", id) for id in ids),
    }
    for name, values in blocks.items():
        stream.write(f'<script type="text/plain" id="{name}">\n')
        stream.writelines(f"{json_text(value)}\n" for value in values)
        stream.write("</script>\n")
    stream.write(tail([script]))


def _shown(record: Fields) -> Fields:
    return {name: value for name, value in record.items() if name not in _ONCE}


def _summary(records: Iterable[Fields]) -> tuple[list[str], str, str]:
    """Returns the ids, the page's title, and what is true of all items."""
    ids, backbones, schemas, num_failed = list[str](), dict[str, None](), dict[str, None](), 0
    first: Fields | None = None
    for record in records:
        first = first or record
        ids.append(str(record["id"]))
        schemas.setdefault(str(record["schema"]).partition("/")[0].replace(".", " "))
        num_failed += record["status"] != "ok"
        if "backbone" in record:
            revision = f" ({record['revision'][:12]})" if "revision" in record else ""
            backbones.setdefault(f"{record['backbone']}{revision}")
    facts = [", ".join(schemas), ", ".join(backbones)]
    if len(ids) == 1 and first is not None:
        asked = first.get("question") or first.get("initial", {}).get("text") or first["id"]
        return ids, shortened(str(asked), _MAX_TITLE), ", ".join(fact for fact in facts if fact)
    failed = f", {num_failed:,} failed" if num_failed else ""
    return ids, f"What was asked of {len(ids):,} pictures", ", ".join([fact for fact in facts if fact]) + failed

"""Finds ids that several records of training data share: a message that names one of them would mean two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlinstruct.errors import DataError, shortened

_SHOWN_IDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class _FirstUse:
    record: str
    image: Path | None


class RecordIds:
    """The ids so far."""

    def __init__(self) -> None:
        self._first: dict[str, _FirstUse] = {}
        self._repeated: dict[str, None] = {}

    def add(self, name: str, *, image: Path | None, record: str, is_image_id: bool) -> str | None:
        """Notes a record's id.

        Args:
            name: the id.
            image: the record's picture; None where it names none.
            record: what to call the record, e.g. `line 7`.
            is_image_id: the id is the picture's, as in LLaVA's data, where several conversations about one picture
                have it; then only another picture's is a repetition.

        Returns:
            What the first record with this id is called, if it is a repetition.
        """
        first = self._first.setdefault(name, _FirstUse(record=record, image=image))
        if first.record == record or (is_image_id and first.image == image):
            return None
        self._repeated[name] = None
        return first.record

    def refuse_repeated(self, file: str) -> None:
        """Refuses a file with repeated ids.

        Raises:
            DataError: there are some (`duplicate_ids`); the first five are named.
        """
        if not self._repeated:
            return
        first = ", ".join(shortened(name, 20) for name in list(self._repeated)[:_SHOWN_IDS])
        why = f"{len(self._repeated)} ids are used twice: {first}"
        advice = "Give every record its own id, or none"
        raise DataError.at("cannot read data", file, why, advice, code="duplicate_ids")

"""The ids of the records of a file: which are used twice."""

from __future__ import annotations

from dataclasses import dataclass

from vlinstruct.errors import DataError, shortened
from vlinstruct.records.lines import UserRecord
from vlinstruct.records.pictures import Picture

_SHOWN_IDS = 5


def name_of(record: UserRecord) -> str:
    """Returns a record's id, or its label in the file with a hyphen."""
    return str(record.id_or(record.label.replace(" ", "-")))


@dataclass(frozen=True, kw_only=True, slots=True)
class _FirstUse:
    record: str
    image: Picture | None


class RecordIds:
    """The ids of the records that were read so far, each with the record that used it first."""

    def __init__(self) -> None:
        self._first: dict[str, _FirstUse] = {}
        self._repeated: dict[str, None] = {}

    def add(self, record: UserRecord, name: str, image: Picture | None) -> str | None:
        """Notes a record's id.

        An id in LLaVA's data is the picture's, and several conversations about one picture share it: there, only
        another picture's record repeats an id.

        Args:
            record: the record.
            name: its id.
            image: its picture; None where it names none.

        Returns:
            What the first record with this id is called, if it is a repetition.
        """
        first = self._first.setdefault(name, _FirstUse(record=record.label, image=image))
        is_image_id = "conversations" in record.fields
        if first.record == record.label or (is_image_id and first.image == image):
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

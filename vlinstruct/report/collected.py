"""What a run leaves for its report beside the records: small pictures, nats of tokens, maps of attention.

It is kept in an unnamed temporary file, so that a run of ten thousand pictures takes as little memory as one of ten.
"""

from __future__ import annotations

import base64
import json
import math
import tempfile
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vlinstruct.backend import Row
from vlinstruct.operations import BatchItem, Fields
from vlinstruct.report.previews import preview_of, shown_frame
from vlinstruct.report.shell import json_text
from vlinstruct.values import Answer, AttentionMap, Optimization, ScoredInstruction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vlinstruct.backend import Seen
    from vlinstruct.model import Model
    from vlinstruct.values import Media

_MAX_PREVIEW_BYTES = 60_000
_PREVIEW_BYTES = 40_000_000
"""Of all pictures together: what a browser opens at once."""
_MAP_BYTES = 30_000_000
"""Of all queries' maps together; beyond them a picture has the mean of its queries."""
_DECIMALS = 4


class Collector:
    """Watches a run, and gives back what it saw of each item.

    Args:
        num_items: how many there will be, about: the more, the smaller their pictures.
    """

    def __init__(self, num_items: int) -> None:
        self.max_preview_bytes = min(_MAX_PREVIEW_BYTES, _PREVIEW_BYTES // max(num_items, 1))
        self.ids: list[str] = []
        self._map_bytes_left = _MAP_BYTES
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this object
        self._places: dict[tuple[str, str], tuple[int, int]] = {}
        self._lock = threading.Lock()

    def sees(self, item: BatchItem, medium: Media) -> None:
        """Keeps a small picture."""
        preview = preview_of(medium, max_bytes=self.max_preview_bytes)
        self._keep("preview", item.id, [preview.address, preview.words])

    def learns(self, item: BatchItem, model: Model, seen: Seen, result: Answer | Optimization) -> None:
        """Keeps what a record does not hold: certainty, the nats of every token, and where the model looked."""
        optimization = result.optimization if isinstance(result, Answer) else result
        details: Fields = {}
        if isinstance(result, Answer):
            details["certainty"] = _rounded(result.certainty)
        if optimization is not None:
            details["versions"] = {
                role.replace(" ", "_"): _version(scored) for role, scored in optimization.by_role().items()
            }
        self._keep("details", item.id, details)
        texts = _texts_read(result, optimization)
        rows = [Row(prompt="", seen=(seen,), reads=text) for text in texts.values()]
        maps = [
            {"of": name, **self._map(frames[shown_frame(len(frames))])}
            for name, frames in zip(texts, model.backend.attention(rows), strict=True)
            if frames
        ]
        self._keep("maps", item.id, maps)

    def writes(self, record: Fields) -> None:
        """Keeps a record, for a run whose output cannot be read again."""
        self.ids.append(str(record["id"]))
        self._keep("record", record["id"], record)

    def of(self, kind: str, id: str | int) -> Any:
        """Returns the `record`, `preview`, `details` or `maps` of an item; None where there is none."""
        place = self._places.get((kind, str(id)))
        if place is None:
            return None
        with self._lock:
            self._file.seek(place[0])
            return json.loads(self._file.read(place[1]))

    def records(self) -> Iterator[Fields]:
        """Yields the records, in their order."""
        yield from (self.of("record", id) for id in self.ids)

    def close(self) -> None:
        """Gives the space back."""
        self._file.close()

    def _keep(self, kind: str, id: str | int, value: Any) -> None:
        content = json_text(value).encode()
        with self._lock:
            start = self._file.seek(0, 2)
            self._file.write(content)
            self._places[kind, str(id)] = (start, len(content))

    def _map(self, attention: AttentionMap) -> Fields:
        """Returns a map as bytes, the mean of the queries first; of the mean alone where the room is used up."""
        looks = attention.looks
        num_queries, rows, columns = looks.shape
        with self._lock:
            has_room = self._map_bytes_left > 0
            self._map_bytes_left -= looks.size * 4 // 3
        maps = [looks.mean(axis=0), *(looks if has_room else ())]
        fields: Fields = {
            "queries": num_queries,
            "grid": [rows, columns],
            # Each map has its own scale: what a query looks at most takes all 255.
            "peaks": [_rounded(float(map.max())) for map in maps],
            "looks": [_packed(map, float(map.max())) for map in maps],
        }
        if attention.reads is not None:
            fields |= {"tokens": list(attention.tokens), "reads": _packed(attention.reads, 1.0)}
        return fields


def _version(scored: ScoredInstruction) -> Fields:
    return {
        "tokens": list(scored.scores.tokens),
        "nll": [_rounded(nats) for nats in scored.scores.token_nll],
        "faults": list(scored.faults),
        "written_certainty": _rounded(scored.written_certainty),
    }


def _texts_read(result: Answer | Optimization, optimization: Optimization | None) -> dict[str, str]:
    """Returns what the model read beside the picture: as it was typed and as it was asked, once where they are one."""
    asked = result.instruction
    if optimization is None or optimization.chosen == "initial":
        return {"asked": asked}
    judgement = optimization.initial.judgement
    typed = optimization.initial.text if judgement is None else judgement.answer.instruction
    return {"typed": typed, "asked": asked}


def _packed(values: NDArray[np.float32], full: float) -> str:
    """Returns numbers of 0 to `full` as a byte each, row after row, in base64."""
    scaled = (values / full if full > 0 else values).clip(0, 1) * 255
    return base64.b64encode(scaled.round().astype("uint8").tobytes()).decode()


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, _DECIMALS)

"""Finds a benchmark's copy in the hub's cache, where `hf download NAME --repo-type dataset` leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlinstruct.evaluation.reading.hub_files import has_tables


def cached_copy(hub_ids: Sequence[str]) -> tuple[str, Path] | None:
    """Returns the first of several repositories whose tables are cached, and its folder; opens no connection.

    Args:
        hub_ids: names of one data set, `owner/name`, the newest first.
    """
    if not hub_ids:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    for hub_id in hub_ids:
        try:
            folder = Path(snapshot_download(hub_id, repo_type="dataset", local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError, OSError):
            continue
        if has_tables(folder):
            return hub_id, folder
    return None

"""`vlinstruct evaluate --calibrate`: thresholds of the guard, found on pictures, and the options to type."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vlinstruct.cli.evaluate_options import BenchmarkOptions, CalibrationOptions
from vlinstruct.cli.evaluate_output import show_json
from vlinstruct.cli.run import collect_garbage_from_here
from vlinstruct.cli.terminal import Talk, progress, show_report
from vlinstruct.errors import BatchError, UsageError
from vlinstruct.evaluation.calibrate import calibrate
from vlinstruct.media.inputs import ListingOptions, list_images
from vlinstruct.model import Model, load
from vlinstruct.records.columns import columns_of
from vlinstruct.records.items import ItemError
from vlinstruct.records.labelled import LABELLED_FIELDS, LabelledItem, read_labelled
from vlinstruct.records.lines import ItemOptions
from vlinstruct.settings import ModelSettings


def run_calibration(
    typed: Sequence[str],
    model: ModelSettings,
    *,
    reading: BenchmarkOptions,
    options: CalibrationOptions,
    batch_size: int,
    as_json: bool,
    talk: Talk,
) -> None:
    """Finds thresholds and prints them.

    Args:
        typed: the pictures.
        model: whose thresholds they are.
        reading: the labelled items, and how large a picture may be.
        options: how the labelled items are read.
        batch_size: pictures that go through the model together.
        as_json: print a record.
        talk: says notices.

    Raises:
        UsageError: no picture is named.
        BatchError: something could not be read and did not count (after printing).
        InputError: too few pictures or items, or the model cannot be guarded.
    """
    if not typed:
        raise UsageError("pictures are needed", advice="Type: vlinstruct evaluate --calibrate IMAGE...")
    inputs = list_images(
        typed,
        stdin=sys.stdin.buffer if sys.stdin is not None else None,
        options=ListingOptions(offline=model.offline),
    )
    for notice in inputs.notices:
        talk.notice(notice)
    labelled: Sequence[LabelledItem | ItemError] = ()
    if reading.data is not None:
        labelled = read_labelled(
            reading.data,
            options=ItemOptions(allow_urls=options.allow_urls, allow_outside=options.allow_outside),
            columns=columns_of(options.columns, LABELLED_FIELDS),
        )

    def load_model() -> Model:
        loaded = load(**vars(model))
        collect_garbage_from_here()
        return loaded

    num_items = len(inputs.items) + len(labelled)
    with talk.listening(), progress(num_items, quiet=talk.quiet) as advance:
        calibration = calibrate(
            load_model,
            inputs.items,
            labelled,
            batch_size=batch_size,
            limits=reading.image_limits(),
            on_item=advance,
            notify=talk.notice,
        )
    if as_json:
        show_json(calibration.as_record())
    else:
        show_report(str(calibration))
    if calibration.failed:
        _, error = calibration.failed[0]
        raise BatchError(
            f"{len(calibration.failed)} of {num_items} pictures and items cannot be used and do not count: "
            f"{error.message}"
        )

"""The checks of a backbone, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.doctor import answering, configuration, tokens, weights
from vlinstruct.doctor.finding import Finding, notice, problem, refusal, run
from vlinstruct.doctor.model import ModelFolder, damaged_files, find
from vlinstruct.doctor.wanted import Wanted
from vlinstruct.errors import VlinstructError
from vlinstruct.files import read_json_object

Check = Callable[[ModelFolder], Iterator[Finding]]

SETTINGS: Sequence[Check] = (
    configuration.architecture,
    configuration.code,
    configuration.old_snapshot,
    configuration.activation,
    configuration.decoder_start,
    configuration.positions,
    configuration.pictures,
)
WEIGHTS: Sequence[Check] = (weights.dtype, weights.tensors, weights.finite)
TOKENIZERS: Sequence[Check] = (
    tokens.vocabulary,
    tokens.end_token,
    tokens.padding_token,
    tokens.begin_token,
    tokens.image_token,
    tokens.vicuna,
    tokens.typed_text,
)
_FIX = "Download or copy the folder again"


def examine_backbone(wanted: Wanted) -> list[Finding]:
    """Runs all of them, as far as the backbone lies here."""
    try:
        folder, found = find(wanted)
    except VlinstructError as error:
        return [refusal("backbone", error, _FIX)]
    return [found] if folder is None else [found, *_examine_folder(folder, wanted)]


def _examine_folder(folder: Path, wanted: Wanted) -> list[Finding]:
    findings = list(damaged_files(folder))
    try:
        values = read_json_object(folder / "config.json")
        model = ModelFolder(folder=folder, values=values, config=InstructBlipConfig.from_dict(values), wanted=wanted)
    except VlinstructError as error:
        return [*findings, refusal("configuration", error, _FIX)]
    except (AttributeError, KeyError, TypeError, ValueError):
        return [*findings, problem("configuration", "config.json is damaged: a value is of a wrong kind", _FIX)]
    for check in (*SETTINGS, *(() if findings else WEIGHTS), *TOKENIZERS):
        findings.extend(_new(run(check, model, fix=_FIX), findings))
    if any(finding.level == "problem" for finding in findings):
        return [*findings, notice("answer", "not tried, for the problems above", "Fix them and run doctor again")]
    return [*findings, *run(answering.answer, model, fix=_FIX)]


def _new(found: Sequence[Finding], findings: Sequence[Finding]) -> list[Finding]:
    """Leaves out what another check has met already, e.g. a missing tokenizer."""
    return [finding for finding in found if finding.found not in {one.found for one in findings}]

"""The checks of a backbone in their order; the last one asks it about a picture that is drawn here, twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from vlinstruct.backends.instructblip.adapter import load_adapter
from vlinstruct.backends.instructblip.configuration import InstructBlipConfig
from vlinstruct.backends.instructblip.opening import load_backend
from vlinstruct.backends.registry import find_adapter, is_instructblip
from vlinstruct.doctor import configuration, folder, tokens
from vlinstruct.doctor.any_vlm import examine_any_vlm
from vlinstruct.doctor.attempt import attempt, compared
from vlinstruct.doctor.finding import DoctorSettings, Finding, notice, refusal, run_check
from vlinstruct.doctor.folder import ModelFolder, damaged_files, find_folder
from vlinstruct.doctor.golden import compare_deeply
from vlinstruct.errors import NetworkError, ResourceError, VlinstructError, is_out_of_memory
from vlinstruct.files import read_json_object

Check = Callable[[ModelFolder], Iterator[Finding]]

_CONFIGURATION: Sequence[Check] = (
    configuration.architecture,
    configuration.code,
    configuration.old_snapshot,
    configuration.activation,
    configuration.decoder_start,
    configuration.positions,
    configuration.pictures,
)
_WEIGHTS: Sequence[Check] = (folder.dtype, folder.tensors, folder.finite)
_TOKENIZERS: Sequence[Check] = (
    tokens.vocabulary,
    tokens.end_token,
    tokens.padding_token,
    tokens.begin_token,
    tokens.image_token,
    tokens.vicuna,
    tokens.typed_text,
)
_FIX = "Download or copy the folder again"
_SMALLER = "Use --dtype bfloat16, --quantize 8bit, or another --device"


def examine_backbone(settings: DoctorSettings) -> list[Finding]:
    """Runs the checks as far as the backbone is on this machine.

    Tensors are not read where a file is damaged already, and no question is asked where there is any problem: both
    would only repeat it.
    """
    try:
        path, source = find_folder(settings)
    except VlinstructError as error:
        return [refusal("backbone", error, _FIX)]
    if path is None:
        return [source]
    findings = [source, *damaged_files(path)]
    is_whole = len(findings) == 1
    try:
        values = read_json_object(path / "config.json")
        if not is_instructblip(values):
            return [*findings, *examine_any_vlm(path, values, settings, is_whole=is_whole)]
        config = InstructBlipConfig.from_dict(values)
    except VlinstructError as error:
        return [*findings, refusal("configuration", error, _FIX)]
    model = ModelFolder(folder=path, values=values, config=config, settings=settings)
    for check in (*_CONFIGURATION, *(_WEIGHTS if is_whole else ()), *_TOKENIZERS):
        # Several checks may fail over the same thing, e.g. a missing tokenizer; it is reported once.
        reported = {finding.found for finding in findings[1:]}
        findings += [finding for finding in run_check(check, model, fix=_FIX) if finding.found not in reported]
    if any(finding.level == "problem" for finding in findings):
        return [*findings, notice("answer", "not tried, for the problems above", "Fix them and run doctor again")]
    deep = list(compare_deeply(settings)) if settings.deep else []
    return [*findings, *run_check(answer, model, fix=_FIX), *deep]


def answer(model: ModelFolder) -> Iterator[Finding]:
    """Loads the backbone, where it fits into memory, and asks it; with its adapter once more."""
    settings = model.settings
    try:
        backend = load_backend(str(model.folder.absolute()), device=settings.device, dtype=settings.dtype, offline=True)
        yield compared("answer", attempt(backend), attempt(backend))
        if settings.adapter is not None:
            check = f"answer with {settings.adapter}"
            try:
                adapter = find_adapter(settings.adapter, offline=True)
            except NetworkError:  # a diagnosis downloads nothing
                fix = f"Get it with: hf download {settings.adapter}"
                yield notice(check, "not tried: it is not in the cache", fix)
                return
            load_adapter(adapter, backend.network)
            yield compared(check, attempt(backend), attempt(backend))
    except ResourceError as error:
        yield notice("answer", f"not tried: {error.problem}", error.advice or _SMALLER)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        yield notice("answer", "not tried: out of memory while it was loaded", _SMALLER)

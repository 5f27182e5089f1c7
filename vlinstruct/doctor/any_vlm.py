"""The checks of a model that transformers runs: what its settings say, its template, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vlinstruct.backend import Row
from vlinstruct.backends.machine import compute_device, compute_dtype
from vlinstruct.backends.registry import identity_of
from vlinstruct.backends.transformers.any_vlm import TransformersBackend
from vlinstruct.backends.transformers.families import FAMILIES
from vlinstruct.backends.transformers.opening import open_backend
from vlinstruct.backends.transformers.support import require_safetensors, require_supported
from vlinstruct.doctor.attempt import attempt, compared
from vlinstruct.doctor.finding import DoctorSettings, Finding, notice, ok, problem, run_check
from vlinstruct.errors import ResourceError, is_out_of_memory
from vlinstruct.values import good

_FIX = "Download or copy the folder again"
_SMALLER = "Use --dtype bfloat16, --quantize 8bit, or another --device"
_TARGETS = ("What is it?", "red")
# In nats: other orders of the same sums.
_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """A model's folder, and how it is meant to run."""

    folder: Path
    values: Mapping[str, Any]
    settings: DoctorSettings


def examine_any_vlm(
    folder: Path, values: Mapping[str, Any], settings: DoctorSettings, *, is_whole: bool
) -> Iterator[Finding]:
    """Runs the checks; nothing is loaded where its settings or files have a problem already.

    Args:
        folder: of the model.
        values: the content of its config.json.
        settings: how it is meant to run.
        is_whole: whether no file is damaged.
    """
    model = _Folder(folder=folder, values=values, settings=settings)
    findings = run_check(kind, model, fix=_FIX)
    yield from findings
    if not is_whole or any(finding.level == "problem" for finding in findings):
        yield notice("answer", "not tried, for the problems above", "Fix them and run doctor again")
        return
    yield from run_check(answer, model, fix=_FIX)


def kind(model: _Folder) -> Iterator[Finding]:
    """Whether transformers runs such a model here, and whether our tests know its kind."""
    name = str(model.values.get("model_type"))
    require_supported(model.folder, model.values, name=model.settings.backbone)
    require_safetensors(model.folder, name=model.settings.backbone)
    if name in FAMILIES:
        yield ok("kind", f"{name}, which is compared with transformers in our tests")
    else:
        yield notice("kind", f"{name}, which our tests do not know", "See whether the checks below hold")


def answer(model: _Folder) -> Iterator[Finding]:
    """Loads the model, where it fits into memory, and asks it twice."""
    settings = model.settings
    try:
        device = compute_device(settings.device)
        backend = open_backend(
            identity_of(model.folder, settings.backbone), device=device, dtype=compute_dtype(settings.dtype, device)
        )
        yield from template(backend)
        yield from typed_text(backend)
        yield compared("answer", attempt(backend), attempt(backend))
        yield from shared_picture(backend)
    except ResourceError as error:
        yield notice("answer", f"not tried: {error.problem}", error.advice or _SMALLER)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        yield notice("answer", "not tried: out of memory while it was loaded", _SMALLER)


def template(backend: TransformersBackend) -> Iterator[Finding]:
    """What a turn ends with, and what the model takes."""
    end = backend.template.pieces([backend.template.end_id])[0]
    media = ", ".join(f"{kind}s" for kind in ("picture", "clip", "sound") if kind in backend.abilities.media)
    if backend.template.template is None:
        yield ok("template", f"none: prompts are read as they are, texts end with {end}; takes {media}")
    else:
        yield ok("template", f"turns end with {end}; takes {media}")


def typed_text(backend: TransformersBackend) -> Iterator[Finding]:
    """Whether tokens that steer the model are text where a user types them."""
    typed = backend.template.mistaken_tokens()
    if typed:
        fix = "Leave such words out of instructions, and report the model"
        yield problem("typed text", f"{len(typed)} control tokens are not kept apart, {typed[0]!r} among them", fix)
    else:
        yield ok(
            "typed text", f"all {len(backend.template.control_tokens)} control tokens are text where they are typed"
        )


def shared_picture(backend: TransformersBackend) -> Iterator[Finding]:
    """Whether likelihoods behind a shared picture are those of transformers' own forward of everything."""
    row = Row(prompt="Describe the image", seen=(good(backend.see([Image.new("RGB", (96, 64), "red")])[0]),))
    scores = good(backend.score([row], [_TARGETS])[0])
    largest = max(
        abs(one - other)
        for target, scored in zip(_TARGETS, scores, strict=True)
        for one, other in zip(scored.token_nll, backend.plain_nll(row, target), strict=True)
    )
    found = f"likelihoods behind a shared picture differ by {largest:.1e} nats from transformers' own forward"
    if largest > _TOLERANCE:
        yield notice("shared picture", found, "Expected of bfloat16 and fewer bits; with --dtype float32 report it")
    else:
        yield ok("shared picture", found)

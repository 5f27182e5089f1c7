"""TextVQA (Singh et al. 2019), validation: 5,000 questions about what is written, ten answers each.

    TextVQA_0.5.1_val.json              {"data": [{"question_id", "image_id", "question", "answers": [ten texts]}, ...]}
    TextVQA_Rosetta_OCR_v0.2_val.json   {"data": [{"image_id", "ocr_tokens": [text, ...]}, ...]}
    train_images/                       the pictures, `image_id`.jpg: the train archive holds these too

On the hub a row has a question's fields under the same names, its picture and the tokens of that.
The instruction shows the first 30 OCR tokens, joined by commas (LAVIS, `predict_answers`). With `--ocr` the tokens of
pictures that have none there, or of all where the file is missing, are what a library reads in them. With
`--no-ocr-tokens` none are shown, and none need be there: the question alone is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from vlinstruct.evaluation.benchmark import Benchmark, HubCopy, Item, ReadText, Task
from vlinstruct.evaluation.reading.annotations import Record, read_object
from vlinstruct.evaluation.reading.hub_tables import read_rows
from vlinstruct.evaluation.reading.items import ItemMaker, LoadPicture, picture, ten_answers
from vlinstruct.media.ocr import MAX_TOKENS

_FILE, _OCR_FILE, _PICTURES = "TextVQA_0.5.1_val.json", "TextVQA_Rosetta_OCR_v0.2_val.json", "train_images/"
_PLAIN_INSTRUCTION = "Question: {question} \n Short answer:"
_INSTRUCTION = "OCR tokens: {tokens} Question: {question} \n Short answer:"
_PLAIN_CHAT_INSTRUCTION = "{question}\nAnswer the question using a single word or phrase."
_CHAT_INSTRUCTION = "{question}\nReference OCR token: {tokens}\nAnswer the question using a single word or phrase."
_TOKENS = "ocr_tokens"
_PART = "val"
_TASK = Task(name="textvqa", metric="vqa_accuracy")


def read(folder: Path, *, read_text: ReadText | None = None, is_plain: bool = False) -> Iterator[Item]:
    """Yields the validation part's items.

    Args:
        folder: the benchmark's.
        read_text: is asked for the tokens of pictures that have none.
        is_plain: no tokens are shown.
    """
    maker = ItemMaker(_TASK)
    tokens: dict[str, tuple[str, ...]] = {}
    # Where nobody reads the pictures the file must be there.
    if not is_plain and (read_text is None or (folder / _OCR_FILE).exists()):
        ocr_records = read_object(folder / _OCR_FILE).records("data", "image")
        tokens = {record.text("image_id"): record.texts("ocr_tokens")[:MAX_TOKENS] for record in ocr_records}
    for record in read_object(folder / _FILE).records("data", "question"):
        _require_part(record)
        image = record.text("image_id")
        load_picture = picture(folder / _PICTURES, f"{image}.jpg", record)
        if is_plain:
            yield _item(maker, record, None, load_picture)
        elif read_text is not None:
            # `or`, not a default: where Rosetta read nothing the library is asked, too.
            yield _item(maker, record, tokens.get(image) or read_text(image, load_picture), load_picture)
        elif image in tokens:
            yield _item(maker, record, tokens[image], load_picture)
        else:
            raise record.error(f"{_OCR_FILE} holds no tokens of its image {image}; --ocr reads them")


def read_copy(folder: Path, *, read_text: ReadText | None = None, is_plain: bool = False) -> Iterator[Item]:
    """Yields the same items from a copy on the hub.

    Args:
        folder: the benchmark's.
        read_text: is asked for the tokens of pictures that have none.
        is_plain: no tokens are shown.
    """
    maker = ItemMaker(_TASK)
    columns, optional = list(_COPY.columns), ["set_name", "image_id"]
    if is_plain or read_text is not None:
        columns.remove(_TOKENS)
        optional += [] if is_plain else [_TOKENS]
    for row in read_rows(folder, _COPY.split, columns=columns, picture="image", optional=optional):
        _require_part(row)
        load_picture = row.picture("image")
        if is_plain:
            yield _item(maker, row, None, load_picture)
            continue
        # Null where nothing was read in the picture.
        tokens = row.texts(_TOKENS)[:MAX_TOKENS] if row.fields.get(_TOKENS) is not None else ()
        if read_text is not None and not tokens:
            tokens = tuple(read_text(row.key("image_id" if "image_id" in row.fields else "question_id"), load_picture))
        yield _item(maker, row, tokens, load_picture)


def with_ocr(read_text: ReadText) -> Benchmark:
    """Returns the benchmark with tokens from elsewhere for pictures that have none.

    Args:
        read_text: is asked for them.
    """
    return replace(
        BENCHMARK,
        forms=_forms_without_tokens(),
        read=partial(read, read_text=read_text),
        copy=replace(_COPY, read=partial(read_copy, read_text=read_text)),
    )


def without_ocr() -> Benchmark:
    """Returns the benchmark as it is asked without OCR tokens."""
    return replace(
        BENCHMARK,
        instruction=_PLAIN_INSTRUCTION,
        chat_instruction=_PLAIN_CHAT_INSTRUCTION,
        forms=_forms_without_tokens(),
        read=partial(read, is_plain=True),
        copy=replace(_COPY, read=partial(read_copy, is_plain=True)),
    )


def _forms_without_tokens() -> Sequence[Mapping[str, str]]:
    """Returns what must be there where the tokens' file may be missing."""
    return ({path: what for path, what in BENCHMARK.forms[0].items() if path != _OCR_FILE},)


def _item(maker: ItemMaker, record: Record, tokens: Sequence[str] | None, load_picture: LoadPicture) -> Item:
    return maker.item(
        record.key("question_id"),
        record,
        instruction=_PLAIN_INSTRUCTION if tokens is None else _INSTRUCTION,
        fields={"question": record.text("question"), "tokens": ", ".join(tokens or ())},
        load_picture=load_picture,
        references=ten_answers(record.texts("answers"), record),
        num_ocr_tokens=None if tokens is None else len(tokens),
    )


def _require_part(record: Record) -> None:
    if record.fields.get("set_name", _PART) not in (_PART, _COPY.split):
        raise record.error(f"it is of another part than '{_PART}'", code="other_part")


_COPY = HubCopy(
    split="validation",
    columns=("question_id", "question", "answers", _TOKENS),
    read=read_copy,
    hub_ids=("lmms-lab-encoder/textvqa", "lmms-lab/textvqa"),
)
BENCHMARK = Benchmark(
    task=_TASK,
    part=_PART,
    num_items=5_000,
    instruction=_INSTRUCTION,
    chat_instruction=_CHAT_INSTRUCTION,
    source="https://textvqa.org/dataset",
    licence="CC BY 4.0",
    forms=(
        {
            _FILE: "the questions",
            _OCR_FILE: "what Rosetta read in the pictures, or run with --ocr or --no-ocr-tokens",
            _PICTURES: "the pictures, of train_val_images.zip",
        },
    ),
    example='{"question_id": 34602, "image_id": "00ab", "question": "What does the sign say?", "set_name": "val", '
    '"answers": ["stop", "stop", "stop", "stop", "stop", "stop", "stop now", "halt", "stop", "stop"]}',
    read=read,
    hub="lmms-lab-encoder/textvqa (until July 2026 lmms-lab/textvqa), validation",
    copy=_COPY,
    with_ocr=with_ocr,
    without_ocr=without_ocr,
)

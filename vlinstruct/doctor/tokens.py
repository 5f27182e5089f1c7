"""A backbone's tokenizers: the ids of configuration and tokenizer agree, and typed text stays text.

The law of a user's text: no special token's id comes of it, whatever was typed, and the language model's
tokenizer gives it back. What a tokenizer cannot write by its nature (T5 a newline, BERT a capital) is found out
one character at a time, and not reported. Otherwise a user who types "<image>" or "</s>" breaks the prompt, in
transformers the whole batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vlinstruct.backends.instructblip.tokenization import LiteralTokenizer, special_token, template_of
from vlinstruct.doctor.finding import Finding, notice, ok, problem
from vlinstruct.doctor.folder import ModelFolder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL_TEXTS = (
    *("<image>", "</s>", "<s>", "<pad>", "<unk>", "[SEP]", "[CLS]", "[PAD]", "[UNK]", "[DEC]", "<extra_id_0>"),
    *("\N{SLIGHTLY SMILING FACE}", "one\ntwo", "Größe über alles", "two  spaces", "a <image> b</s>"),
)
_UNKNOWN = ("<unk>", "[UNK]")  # stand for characters that a vocabulary lacks
_IMAGE = "<image>"
_SAME = "Take config.json and the tokenizers from the same model"
_VICUNA = "Take the tokenizer files of the model's own repository"
# LAVIS added both to Llama's 32,000 tokens; a Vicuna of another maker has other ids there, or none.
_VICUNA_PAD, _VICUNA_IMAGE = 32000, 32001


def vocabulary(model: ModelFolder) -> Iterator[Finding]:
    """Whether every id that a tokenizer can give has a row in its table."""
    tables = {
        "language model": (model.tokenizer, model.config.text_config.vocab_size),
        "Q-Former": (model.qformer_tokenizer, model.config.qformer_config.vocab_size),
    }
    for part, (tokenizer, num_rows) in tables.items():
        largest = max(tokenizer.get_vocab().values())
        if largest >= num_rows:
            message = f"the tokenizer's ids go up to {largest}, the {part}'s table has {num_rows} rows"
            yield problem("vocabulary", message, _SAME)
        else:
            yield ok("vocabulary", f"{part}: {tokenizer.get_vocab_size()} tokens in a table of {num_rows}")


def end_token(model: ModelFolder) -> Iterator[Finding]:
    """Whether the configuration's end token is the tokenizer's."""
    yield _agreement(model, "end token", "eos_token", model.config.text_config.eos_token_id)


def padding_token(model: ModelFolder) -> Iterator[Finding]:
    """Whether the configuration's padding token is the tokenizer's; Llama's is never read, as padding is masked."""
    if model.config.text_config.is_encoder_decoder:
        yield _agreement(model, "padding token", "pad_token", model.config.text_config.pad_token_id)


def begin_token(model: ModelFolder) -> Iterator[Finding]:
    """What a prompt begins with: Llama's tokenizer says it, T5 has none."""
    text = model.config.text_config
    if text.bos_token_id is None:
        return
    template, name = template_of(model.tokenizer), special_token(model.folder, "bos_token")
    if template is not None:
        tokens = [str(model.tokenizer.id_to_token(token)) for token in template[0]]
        yield ok("begin token", f"prompts begin with {' '.join(tokens) or 'none'}, as tokenizer.json says")
    elif name is None:
        token = model.tokenizer.id_to_token(text.bos_token_id)
        fix = 'Write "bos_token" into tokenizer_config.json'
        yield notice("begin token", f"tokenizer_config.json names none: {token}, as config.json says", fix)
    elif model.tokenizer.token_to_id(name) is None:
        yield problem("begin token", f"tokenizer_config.json names {name}, which the tokenizer does not have", _SAME)
    else:
        yield ok("begin token", f"prompts begin with {name}, id {model.tokenizer.token_to_id(name)}")


def _agreement(model: ModelFolder, check: str, name: str, token_id: int) -> Finding:
    """Compares an id of config.json with the token of that name in tokenizer_config.json, where it names one."""
    token, named_token = model.tokenizer.id_to_token(token_id), special_token(model.folder, name)
    if token is None:
        return problem(check, f"config.json says id {token_id}, which the tokenizer does not have", _SAME)
    if named_token is not None and named_token != token:
        other_id = model.tokenizer.token_to_id(named_token)
        message = f"config.json says id {token_id} ({token}), the tokenizer {named_token} (id {other_id})"
        if other_id is not None and name == "eos_token":
            return notice(check, f"{message}, with which texts end", _SAME)
        return problem(check, message, _SAME)
    return ok(check, f"{token}, id {token_id}")


def image_token(model: ModelFolder) -> Iterator[Finding]:
    """Whether both agree on the placeholder of transformers' inputs; our prompts have none."""
    index, token_id = model.config.image_token_index, model.tokenizer.token_to_id(_IMAGE)
    if index is None or token_id is None:
        return
    if index == token_id:
        yield ok("image token", f"{_IMAGE}, id {token_id}")
    else:
        message = f"config.json says id {index}, the tokenizer {token_id}: we do without it, transformers cannot"
        yield notice("image token", message, _SAME)


def vicuna(model: ModelFolder) -> Iterator[Finding]:
    """Whether a Llama of Vicuna's vocabulary is InstructBLIP's: merged v1.1 weights, with LAVIS's tokens."""
    text = model.config.text_config
    if text.bos_token_id is None or text.vocab_size <= _VICUNA_PAD:
        return
    tokenizer, begin = model.tokenizer, special_token(model.folder, "bos_token")
    expected = {
        f"[PAD] has id {_VICUNA_PAD}": tokenizer.token_to_id("[PAD]") == _VICUNA_PAD,
        f"{_IMAGE} has id {_VICUNA_IMAGE}": tokenizer.token_to_id(_IMAGE) == _VICUNA_IMAGE,
        "prompts begin with </s>, as LAVIS trained it": begin == "</s>",
        "texts end with id 2": text.eos_token_id == 2,
        "a generated id 0 (LAVIS: the end) leaves no text": 0 in LiteralTokenizer(tokenizer).special,
    }
    missing_marks = [mark for mark, holds in expected.items() if not holds]
    if missing_marks:
        message = f"this is not InstructBLIP's Vicuna v1.1, where {'; '.join(missing_marks)}"
        yield notice("vicuna", message, _VICUNA)
    else:
        yield ok("vicuna", f"InstructBLIP's: {', '.join(expected)}")


def typed_text(model: ModelFolder) -> Iterator[Finding]:
    """Whether what a user types stays text, for both tokenizers, and comes back from the language model's as typed."""
    text = model.config.text_config
    ids = (text.eos_token_id, text.pad_token_id, model.config.image_token_index)
    yield _stays_text("language model", model.tokenizer, {token_id for token_id in ids if token_id is not None})
    yield _stays_text("Q-Former", model.qformer_tokenizer, set())
    yield from _comes_back(model.tokenizer)


def _stays_text(part: str, tokenizer: Tokenizer, forbidden: set[int]) -> Finding:
    """Returns whether a typed text ever becomes a special token."""
    literal = LiteralTokenizer(tokenizer)
    # Whatever has a special name counts, marked as special in the file or not.
    named_ids = {token for name in SPECIAL_TEXTS if (token := tokenizer.token_to_id(name)) is not None}
    unknown_ids = {tokenizer.token_to_id(name) for name in _UNKNOWN}
    control_ids = ({*literal.special, *forbidden} | named_ids) - unknown_ids
    wrong_texts = [text for text in SPECIAL_TEXTS if control_ids & set(literal.encode(text))]
    if wrong_texts:
        message = f"{part}: {', '.join(map(repr, wrong_texts))} become special tokens when a user types them"
        return problem("typed text", message, "Mark these tokens as special in tokenizer.json")
    return ok("typed text", f"{part}: none of {len(SPECIAL_TEXTS)} special texts becomes a special token")


def _comes_back(tokenizer: Tokenizer) -> Iterator[Finding]:
    def comes_back(text: str) -> bool:
        ids = LiteralTokenizer(tokenizer).encode(text)
        return bool(tokenizer.decode(ids, skip_special_tokens=True).strip() == text)

    # A vocabulary may lack a character (T5 a newline); a text of characters that come back alone must come back whole.
    writable = [text for text in SPECIAL_TEXTS if all(comes_back(f"x{unit}x") for unit in re.findall(r"\s+|\S", text))]
    lost_texts = [text for text in writable if not comes_back(text)]
    if lost_texts:
        quoted = ", ".join(map(repr, lost_texts))
        message = f"language model: {quoted} come back as other text, though their characters do not"
        yield problem("typed text", message, _SAME)
    else:
        remark = "" if len(writable) == len(SPECIAL_TEXTS) else ", the others hold characters it cannot write"
        yield ok("typed text", f"{len(writable)} come back as typed{remark}")

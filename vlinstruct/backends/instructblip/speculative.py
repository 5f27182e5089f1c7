"""Greedy generation that verifies drafted tokens several at a time: the same text in fewer passes.

Rewriting and comparing mostly copy an instruction, so a draft is looked up in it, not computed (prompt lookup decoding;
Saxena, 2023). Every pass feeds each row's last token and its draft, and keeps the draft as far as it is what the model
would have written (Leviathan et al., 2023, at temperature 0). Rows advance at their own pace.

transformers has prompt lookup, too, but looks in the decoder's own ids: useless for T5, whose prompt the encoder reads.

Legend: B rows, S drafted tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlinstruct.backends.decoding import require_finite, token_nll
from vlinstruct.backends.instructblip.language_model import Context, Reader

_MAX_MATCH = 4  # tokens; a longer end of the text that matches has a matching end of four
_MAX_DRAFTED = 32  # per pass; what is wrong of it was computed for nothing
# After a wrong token, and twice as many after every draft that was right. Of what mini writes, passes become 1 % more
# and fed tokens 22 % fewer than with 32 always; in 8 layers of width 512 on a CPU, 22 tokens take twice as long as 5.
_FIRST_DRAFTED = 4


class CopyingDraft:
    """Drafts one row.

    Args:
        source: ids of the text that is probably repeated, end token included; empty drafts nothing.

    >>> draft = CopyingDraft([5, 6, 7, 8, 1])
    >>> draft.after([]), draft.after([9, 6]), draft.after([6, 9]), draft.after([9])
    ([5, 6, 7, 8, 1], [7, 8, 1], [8, 1], [])
    """

    def __init__(self, source: Sequence[int]) -> None:
        self.source = list(source)

    def after(self, written: Sequence[int]) -> list[int]:
        """Returns what follows the end of `written` in the source, where its longest match stands last.

        Args:
            written: ids that the row has so far.
        """
        if not written:
            return self.source[:_MAX_DRAFTED]
        # A source without the last token may have had it replaced, as a rewriting does with a word: match what is
        # before it, and draft what is behind the replaced one.
        for num_replaced in (0, 1):
            end = self._end_of_match(written[: len(written) - num_replaced])
            if end is not None:
                return self.source[end + num_replaced :][:_MAX_DRAFTED]
        return []

    def _end_of_match(self, written: Sequence[int]) -> int | None:
        for length in range(min(_MAX_MATCH, len(written)), 0, -1):
            tail = list(written[-length:])
            for start in range(len(self.source) - length, -1, -1):
                if self.source[start : start + length] == tail:
                    return start + length
        return None


class DraftedRow:
    """One row's text and the draft of what follows."""

    def __init__(self, source: Sequence[int], max_new_tokens: int, stop_ids: Sequence[int]) -> None:
        self.draft = CopyingDraft(source)
        self.max_new_tokens = max_new_tokens
        self.stop_ids = stop_ids
        self.written: list[int] = []
        self.token_nll: list[float] = []
        self.proposed = self.draft.after([])  # whole: what is well worded is copied whole
        self.num_drafted = _FIRST_DRAFTED

    @property
    def is_finished(self) -> bool:
        """Whether nothing more is written."""
        return len(self.written) >= self.max_new_tokens or (bool(self.written) and self.written[-1] in self.stop_ids)

    def accept(self, likeliest: Sequence[int], nll: Sequence[float]) -> int:
        """Writes the proposed tokens as far as they are right, and the one that the model writes then.

        Args:
            likeliest: the model's token in each proposed one's place, and the one after them.
            nll: their nats.

        Returns:
            How many proposed tokens were right.
        """
        num_right = 0
        # One token more than was proposed: even where all of the draft is wrong, a pass writes one.
        for token, nats, proposed in zip(likeliest, nll, [*self.proposed, None], strict=False):
            self.written.append(token)
            self.token_nll.append(nats)
            if self.is_finished or token != proposed:
                break
            num_right += 1
        self.num_drafted = 2 * self.num_drafted if num_right == len(self.proposed) > 0 else _FIRST_DRAFTED
        self.proposed = [] if self.is_finished else self.draft.after(self.written)[: self.num_drafted]
        return num_right


def generate_from_drafts(
    reader: Reader,
    context: Context,
    sources: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop_ids: Sequence[int],
) -> list[DraftedRow]:
    """Continues every row of `context` greedily.

    Args:
        reader: the language model.
        context: what it reads first.
        sources: per row the ids of a text that it probably repeats.
        max_new_tokens: the most tokens of a row.
        stop_ids: ids that end a text.

    Returns:
        Every row with its new ids, the stop id included, and their nats.

    Raises:
        CheckpointError: the model's logits are not finite.
    """
    device = context.inputs_embeds.device
    rows = [DraftedRow(source, max_new_tokens, stop_ids) for source in sources]
    drafts = _padded([row.proposed for row in rows], device)
    logits, state = reader.prefill(context.inputs_embeds, context.attention_mask, drafts)
    while True:
        require_finite(logits)
        tokens = logits.argmax(dim=-1)
        nll = token_nll(logits, tokens).tolist()
        num_fed = logits.shape[1]
        num_dropped = []
        for row, row_tokens, row_nll in zip(rows, tokens.tolist(), nll, strict=True):
            # Keys and values of wrong tokens and of padding must go again; of a finished row all that was fed.
            num_right = -1 if row.is_finished else row.accept(row_tokens[: 1 + len(row.proposed)], row_nll)
            num_dropped.append(num_fed - 1 - num_right)
        if all(row.is_finished for row in rows):
            return rows
        state.drop(num_dropped)
        fed = [[row.written[-1], *row.proposed] for row in rows]
        logits = reader.decode(_padded(fed, device), state)


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """(B, S), zeros on the right: what is fed there is dropped again."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.long, device=device)

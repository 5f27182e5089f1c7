"""Writes ptb_golden.json: captions with the tokens of pycocoevalcap 1.2's PTBTokenizer; needs Java and pycocoevalcap.

PYTHONPATH=<where pycocoevalcap is> python tests/tools/make_ptb_golden.py
"""

from __future__ import annotations

import json
from pathlib import Path

from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

GOLDEN = Path(__file__).parents[1] / "metrics" / "ptb_golden.json"
CAPTIONS = [
    "A man in a red shirt rides a horse .",
    "A man in a red shirt rides a horse.",
    "Two dogs, one black and one white, are playing in the snow!",
    "The man's hat isn't on his head; it's on the dog's.",
    "The boys' bikes, the girls' kites",
    "She's got what they're after, he'd said, and we've seen I'm right: you'll see",
    "can't won't cannot don't ain't couldn't've",
    "They're gonna wanna gotta run, gimme that, lemme see",
    "'Tis a cat, 'twas a dog, y'all",
    "A t-shirt, a black-and-white photo and a 2-year-old's toy",
    "A sign that reads \"STOP\" next to a 'no entry' sign",
    "A sign that says \u201cDon\u2019t walk\u201d \u2013 in red \u2014 or \u2018wait\u2019\u2026",
    "wait... what?! no!! -- yes - no",
    "What is it? A bird? A plane!",
    "A man (in red) with [brackets] and {braces}",
    "It costs $5.00 and 50% off, #1 of 1,000 at 5:30 p.m. on 12/25",
    "Mr. Smith and Dr. Jones of the U.S. at St. Louis.",
    "A street sign for Main St. and Park Ave. in Washington D.C.",
    "A man/woman at the AT&T store & an R&B singer &amp; band",
    "salt&pepper shakers, r&b, R&B and m&m's",
    "Rock 'n' roll at five o'clock, ma'am, in O'Neil's pub",
    "rock'n'roll and fish'n'chips",
    "A car from the 1990's and one from the '90s",
    "The score is 3-2, -5 degrees, .5 of it, 1.5 more",
    "A café with a naïve résumé, el niño, 日本語",
    "A dog \U0001f600 in the park\U0001f333now",
    "A player wearing #5 and #tag @user at www.foo.com or http://x.com/y?z=1, a@b.com",
    "A 6ft. tall man, 5x7 photo, 10k run, 3D glasses, 1st place, 20th floor",
    "Man on horse.Woman on foot",
    'he said,"hello." she said "hi"!',
    "a * b = c + d / e | f \\ g ~ h ^ i < j > k",
    "snake_case_word and   many    spaces\tand a tab",
    "-word word- --word word-- - -",
    "ALL CAPS CAPTION, LTD. INC. CO.",
    "i. A. b. the end of a.",
    "12' long 6\" wide",
    "catch 'em, 'cause they run",
    "...",
    "!",
    "a",
]

if __name__ == "__main__":
    tokenized = PTBTokenizer().tokenize({index: [{"caption": one}] for index, one in enumerate(CAPTIONS)})
    rows = [json.dumps([one, tokenized[index][0].split()]) for index, one in enumerate(CAPTIONS)]
    GOLDEN.write_text("[\n" + ",\n".join(rows) + "\n]\n")

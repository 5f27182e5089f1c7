"""The words and numbers that are printed in pictures, and which part's pictures may show them.

A third are English words of signs and labels, a third pronounceable inventions (so that reading cannot be replaced by
guessing), a third numbers. Which part it belongs to is a property of the text itself.
"""

from __future__ import annotations

import random
import zlib

from vlinstruct.mini import Split

MAX_LENGTH = 8
# By a text's checksum: inventions and numbers cannot be listed, and a list would change with every word that is added.
_NUM_BUCKETS = 20
_SPLITS: dict[int, Split] = {0: "dev", 10: "test"}

_SIGN_TEXT = """
    exit open closed stop cafe hotel taxi bank park museum station airport ticket bakery pizza coffee tea menu sale shop
    market school hospital police fire water danger warning caution enter push pull lift stairs toilet ladies gents
    staff private office parking garage bus tram train metro ferry port gate platform north south east west city
    village bridge river lake beach forest garden farm barn castle tower church temple library theatre cinema music
    radio news paper book pen pencil letter stamp post mail phone call help info map guide tour travel trip flight
    visa bread butter cheese milk honey sugar salt pepper soup salad rice pasta fish chicken beef pork lemon apple
    banana cherry grape melon peach pear plum mango onion garlic carrot potato tomato bean corn cake cookie candy
    juice soda beer wine bar pub grill diner bistro kitchen table chair lamp sofa bed bath towel soap mirror clock
    watch shoe sock shirt coat hat glove scarf dress jeans belt bag wallet key lock door window wall floor roof
    house home room hall street road lane avenue drive court plaza king queen prince knight lord lady doctor nurse
    teacher student pilot driver baker farmer artist singer actor writer poet dog cat horse cow sheep goat pig duck
    goose hen rabbit mouse tiger lion bear wolf fox deer eagle hawk owl crow dove swan frog snake turtle shark whale
    summer winter spring autumn monday friday sunday june july march april august hello thanks welcome please sorry
    love peace hope dream smile happy lucky magic power speed energy light sound silver gold iron steel stone wood
    glass plastic paint brush tool hammer nail saw drill wrench engine wheel brake motor cycle truck van wagon jeep
    rocket planet moon sun earth mars venus comet galaxy space cloud rain snow storm wind thunder flash spark flame
    smoke ash dust sand rock hill mountain valley island ocean coast harbor anchor ship boat canoe sail rope net hook
    game play sport ball team club goal score match chess poker dice card prize award medal trophy bonus extra free
    new best super ultra mega mini max plus pro zone area level floor unit lab studio gym yoga spa salon pet vet zoo
"""
_ONSET_TEXT = "b c d f g h j k l m n p r s t v w y z br ch cl cr dr fl gr pl pr sh sk sl sp st th tr qu"
_VOWEL_TEXT = "a e i o u a e i o u ai ea ee oo ou"
_CODA_TEXT = "b d g k l m n p r s t x nd nk nt rd rk rt st ck ll"
SIGN_WORDS = tuple(_SIGN_TEXT.split())
_ONSETS = _ONSET_TEXT.split()
_VOWELS = _VOWEL_TEXT.split()
_CODAS = ["", "", "", *_CODA_TEXT.split()]


def split_of(text: str) -> Split:
    """Returns the part whose pictures may show `text`, whatever its letter case: one in twenty for dev, one for test.

    >>> split_of("Exit") == split_of("EXIT")
    True
    """
    return _SPLITS.get(zlib.crc32(text.lower().encode()) % _NUM_BUCKETS, "train")


def _invented(rng: random.Random) -> str:
    syllables = (
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((1, 2, 2, 3)))
    )
    return "".join(syllables)[:MAX_LENGTH]


# Letters without any order of a language: only looking at each of them reads these.
def _scrambled(rng: random.Random) -> str:
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, MAX_LENGTH)))


def _number(rng: random.Random) -> str:
    return "".join(rng.choice("0123456789") for _ in range(rng.choice((2, 2, 3, 3, 4, 4, 5, 6, 7, 8))))


def _sign_word(rng: random.Random) -> str:
    return rng.choice(SIGN_WORDS)


def sample_text(rng: random.Random, split: Split) -> str:
    """Samples a text of 2 to 8 characters in lower case that belongs to a part."""
    sample = rng.choices((_sign_word, _invented, _scrambled, _number), (0.36, 0.28, 0.10, 0.26))[0]
    while True:  # about one try in twenty belongs to dev, one to test
        text = sample(rng)
        if 2 <= len(text) <= MAX_LENGTH and split_of(text) == split:
            return text


def with_case(text: str, rng: random.Random) -> str:
    """Returns the text in capitals, small letters or with a capital first letter, at random."""
    return rng.choices((text.upper(), text, text.capitalize()), (0.5, 0.3, 0.2))[0]

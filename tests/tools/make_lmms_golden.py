"""Writes lmms_golden.json and lmms_captions_golden.json: random cases with the scores of lmms-eval 0.7.3's functions.

    python tests/tools/make_lmms_golden.py

Needs lmms-eval, pycocoevalcap and Java, and takes a quarter of an hour, most of it starts of Java. The first file has:
    vqa        per case of vqa_golden.json what textvqa and vizwiz_vqa give: [[...], [...]]
    gqa        [prediction, answer, score], in forms that their exact_match and ours read alike
    gqa_other  the same in forms that they do not
    ranked     [nll, target, acc of a multiple choice, score of scienceqa on the letter of the lowest]
The second has sets: [captions, references, CIDEr of flickr30k, CIDEr of nocaps].
"""

from __future__ import annotations

import json
import random
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lmms_eval.api.metrics import exact_match_hf_evaluate
from lmms_eval.api.task import ConfigurableTask
from lmms_eval.tasks.flickr30k.utils import flickr_cider, flickr_process_result
from lmms_eval.tasks.nocaps.utils import nocaps_cider, nocaps_process_result
from lmms_eval.tasks.scienceqa.utils import sqa_process_results
from lmms_eval.tasks.textvqa.utils import textvqa_process_results
from lmms_eval.tasks.vizwiz_vqa.utils import vizwiz_vqa_process_results

NUM_CASES = 520
GOLDEN = Path(__file__).parents[1] / "metrics" / "lmms_golden.json"
CAPTIONS_GOLDEN = Path(__file__).parents[1] / "metrics" / "lmms_captions_golden.json"
VQA_GOLDEN = Path(__file__).parents[1] / "metrics" / "vqa_golden.json"
ANSWERS = ["yes", "no", "left", "man", "white and black", "10", "café", "tennis racket", "Bus", "the dog"]
SPELLED = [
    "t-shirt",
    "tshirt",
    "t shirt",
    "o'clock",
    "oclock",
    "it's",
    "yes .",
    "yes. .",
    "(left)",
    "left",
    "yes",
    "a.b",
]
WORDS = "a the man woman dog two red on in with sits holding street bike's isn't t-shirt grass"


class Task(ConfigurableTask):
    """A task whose document is its target; it has no data set.

    Args:
        output_type: generate_until or multiple_choice.
        metric: its name and function.
        settings: what the task's YAML gives the function.
    """

    def __init__(self, output_type: str, metric: dict[str, Any], **settings: bool) -> None:
        self.OUTPUT_TYPE = output_type
        self._config = SimpleNamespace(process_results=None, doc_to_choice=None)
        self._metric_fn_list = metric
        self._metric_fn_kwargs = dict.fromkeys(metric, settings)
        self.multiple_input = self.multiple_target = False

    def doc_to_target(self, doc: Any) -> Any:
        return doc["target"]

    def doc_to_choice(self, doc: Any) -> Any:
        return doc["choices"]


GQA = Task("generate_until", {"exact_match": exact_match_hf_evaluate}, ignore_case=True, ignore_punctuation=True)
MULTIPLE_CHOICE = Task("multiple_choice", {"acc": None})


def vqa_scores(process: Callable[[Any, list[str]], Any]) -> list[float]:
    cases = json.loads(VQA_GOLDEN.read_text())
    documents = [{"answers": [*case["answers"]], "question_id": 0} for case in cases]  # they write into the answers
    predictions = [case["prediction"].strip() for case in cases]
    return [float(process(one, [said])["exact_match"]) for one, said in zip(documents, predictions, strict=True)]


def gqa_case(rng: random.Random) -> list[Any]:
    answer = rng.choice(ANSWERS)
    said = answer if rng.random() < 0.6 else rng.choice([*ANSWERS, answer + "s", "the " + answer, answer[:-1], ""])
    form = rng.choice([str, str.upper, str.title, str.lower])
    return gqa_scored(
        f"{rng.choice(['', ' '])}{form(said)}{rng.choice(['', '.', '!', '?', ',', ';', ':', '...', '.  '])}", answer
    )


def gqa_scored(prediction: str, answer: str) -> list[Any]:
    return [prediction, answer, float(GQA.process_results({"target": answer}, [prediction])["exact_match"])]


def ranked_case(rng: random.Random) -> list[Any]:
    decimals = rng.choice([0, 1, 4])
    nll = [round(rng.expovariate(1), decimals) for _ in range(rng.randint(2, 6))]
    target = rng.randrange(len(nll))
    choices = list(string.ascii_uppercase[: len(nll)])
    chosen = MULTIPLE_CHOICE.process_results({"target": target, "choices": choices}, [(one, False) for one in nll])
    letter = choices[sorted(range(len(nll)), key=nll.__getitem__)[0]]
    return [
        nll,
        target,
        chosen["acc"],
        sqa_process_results({"choices": choices, "answer": target}, [letter])["exact_match"],
    ]


def sentence(rng: random.Random) -> str:
    words = " ".join(rng.choices(WORDS.split(), k=rng.randint(2, 7)))
    return rng.choice([words, words.capitalize() + ".", words.replace(" on ", ", on ")])


def captions_case(rng: random.Random, folder: str) -> list[Any]:
    references = [[sentence(rng) for _ in range(rng.randint(1, 2))] for _ in range(rng.randint(2, 3))]
    captions = [rng.choice([rng.choice(row), sentence(rng)]) for row in references]
    documents = [
        {"img_id": number, "image_id": number, "caption": row, "annotations_captions": row}
        for number, row in enumerate(references)
    ]
    pairs = list(zip(documents, captions, strict=True))
    flickr30k = [flickr_process_result(one, [said])["flickr_CIDEr"] for one, said in pairs]
    nocaps = [nocaps_process_result(one, [said])["nocaps_CIDEr"] for one, said in pairs]
    arguments = SimpleNamespace(output_path=folder)  # where they write what a server wants
    return [captions, references, float(flickr_cider(flickr30k, arguments)), float(nocaps_cider(nocaps, arguments))]


def rows(cases: list[Any]) -> str:
    return "[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]"


if __name__ == "__main__":
    rng = random.Random(73)
    parts = {
        "vqa": [vqa_scores(textvqa_process_results), vqa_scores(vizwiz_vqa_process_results)],
        "gqa": [gqa_case(rng) for _ in range(NUM_CASES)],
        "gqa_other": [gqa_scored(said, answer) for said in SPELLED for answer in SPELLED],
        "ranked": [ranked_case(rng) for _ in range(NUM_CASES)],
    }
    GOLDEN.write_text("{\n" + ",\n".join(f'"{name}": {rows(cases)}' for name, cases in parts.items()) + "\n}\n")
    with tempfile.TemporaryDirectory() as folder:
        CAPTIONS_GOLDEN.write_text(rows([captions_case(rng, folder) for _ in range(NUM_CASES)]) + "\n")

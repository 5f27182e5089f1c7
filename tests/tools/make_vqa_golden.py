"""Writes vqa_golden.json: random predictions and answers with the accuracy of the three codes our normalizers follow.

    python tests/tools/make_vqa_golden.py OFFICIAL LAVIS EVALAI

OFFICIAL is vqaEval.py of GT-Vision-Lab/VQA (a013f00), LAVIS is lavis/common/vqa_tools/vqa_eval.py of salesforce/LAVIS,
and EVALAI is lmms_eval/tasks/_task_utils/vqa_eval_metric.py of lmms-eval 0.7.3. A case is
{"prediction": ..., "answers": [...], "official": ..., "lavis": ..., "evalai": ...}.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NUM_CASES = 520
GOLDEN = Path(__file__).parents[1] / "metrics" / "vqa_golden.json"
PIECES = r"""
aint couldnt've somebody'd somebodyd 'ows'at y'alld've Im let's its dont don't isnt it's dog's dogs' oclock a an the The
none zero one two Three ten 2 10 1,000 2.5 3. .5 5:30 u.s. yes no dog red t-shirt black/white (left) [x] {y} "q" what?
no! a,b @me <b> x_y 1+1=2 `c` \d ; , . ... - / ?
"""


Accuracy = Callable[[str, list[str]], float]


def names_of(path: str) -> dict[str, Any]:
    """Runs a file; the official one is Python 2, whose print is a statement."""
    source = re.sub(r'print "(.*)"', r'print("\1")', Path(path).read_text(encoding="utf-8")).expandtabs(4)
    names: dict[str, Any] = {}
    exec(compile(source, path, "exec"), names)
    return names


def record_accuracy(evaluator: Any) -> Accuracy:
    def accuracy(prediction: str, answers: list[str]) -> float:
        records = [{"answer": answer, "answer_id": index} for index, answer in enumerate(answers)]
        truth = {0: {"answers": records, "question_type": "", "answer_type": ""}}
        ids = SimpleNamespace(getQuesIds=lambda: [0], qa=truth)
        evaluation = evaluator(ids, SimpleNamespace(getQuesIds=lambda: [0], qa={0: {"answer": prediction}}), n=9)
        evaluation.evaluate()
        return float(evaluation.evalQA[0]) / 100

    return accuracy


def evalai_accuracy(normalize: Callable[[str], str]) -> Accuracy:
    def accuracy(prediction: str, answers: list[str]) -> float:
        given = [normalize(answer) for answer in answers]
        others = [given[:index] + given[index + 1 :] for index in range(len(given))]
        return sum(min(1, rest.count(normalize(prediction)) / 3) for rest in others) / len(given)

    return accuracy


def random_answer(rng: random.Random) -> str:
    if rng.random() < 0.4:
        return rng.choice(["dog", "red dog", "yes", "t-shirt", "2.5", "(left)", "what?"])
    pieces = PIECES.split()
    return "".join(rng.choice(pieces) + rng.choice("   .,\n-") for _ in range(rng.randint(1, 3)))


def varied(rng: random.Random, answer: str) -> str:
    return rng.choice(
        [answer, answer, answer.upper(), f"the {answer}", f"{answer}.", answer.strip(), answer.replace("'", "")]
    )


def random_case(rng: random.Random, codes: dict[str, Accuracy]) -> dict[str, object]:
    pool = [random_answer(rng) for _ in range(rng.randint(1, 3))]
    answers = pool[:1] * 10 if rng.random() < 0.25 else [varied(rng, rng.choice(pool)) for _ in range(10)]
    prediction = varied(rng, rng.choice(answers))
    scores = {name: accuracy(prediction, answers) for name, accuracy in codes.items()}
    return {"prediction": prediction, "answers": answers} | scores


if __name__ == "__main__":
    official, lavis, evalai = map(names_of, sys.argv[1:])
    codes = {
        "official": record_accuracy(official["VQAEval"]),
        "lavis": record_accuracy(lavis["VQAEval"]),
        "evalai": evalai_accuracy(evalai["EvalAIAnswerProcessor"]()),
    }
    rng = random.Random(10)
    cases = [json.dumps(random_case(rng, codes)) for _ in range(NUM_CASES)]
    GOLDEN.write_text("[\n" + ",\n".join(cases) + "\n]\n")

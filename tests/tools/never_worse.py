"""Measures whether optimization makes answers worse: mini and mini-llama, four kinds of words, every rule of choosing.

    PYTHONPATH=tests:examples python -m tools.never_worse answer --part dev -o FOLDER   # hours on two cores
    PYTHONPATH=tests:examples python -m tools.never_worse plant --part dev -o FOLDER
    PYTHONPATH=tests:examples python -m tools.never_worse report -o FOLDER
    PYTHONPATH=tests:examples python -m tools.never_worse examples -o FOLDER  # answers that `safe` mends
    PYTHONPATH=tests:examples python -m tools.never_worse odds --part dev -o FOLDER  # and how often, on other pictures
    PYTHONPATH=tests:examples python -m tools.never_worse guesses -o FOLDER  # what an answer's certainty says of it
    PYTHONPATH=tests:examples python -m tools.never_worse questions --part dev --items 8 -o FOLDER  # for bench --data

Canonical, good and poor words are asked of mini's ten tasks, every wording of a part (`mini/phrasings.yaml`, in all its
forms) of drawn pictures of its own. The wordings of the test part were written apart from the code and its rules;
README.md lists every look at them. A folder that is there is gone on with.

`plant` puts the canonical instruction of another task about the same picture in place of the rewriting, and keeps those
whose answer is worse: a rule that takes one of them has been fooled.

In people's words a kind's score is the share of right answers (yes and true, no and false are one), of captions CIDEr
over its maximum; resamples draw wordings, then the pictures of each. Elsewhere it is what `vlinstruct evaluate` says.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pretrain_mini.evaluate_people import is_same_answer, pictures_for
from vlinstruct.backends.registry import BACKBONES, find
from vlinstruct.evaluation.benchmark import Item, Task
from vlinstruct.evaluation.benchmarks.mini import TASKS, items
from vlinstruct.evaluation.report.columns import COLUMNS, candidates_in, is_sure, read_records, role_of
from vlinstruct.evaluation.report.scores import TextRules, are_positive, item_scores, item_values, task_scores
from vlinstruct.evaluation.report.text import spelled
from vlinstruct.evaluation.runner import Contender, run
from vlinstruct.instruction.choose import RULES
from vlinstruct.instruction.content import content_changes
from vlinstruct.instruction.judge import Answering, answers_to_judge, judge
from vlinstruct.metrics.bootstrap import NUM_RESAMPLES, interval, resampled_rows
from vlinstruct.metrics.captions import Captions, ptb_tokens
from vlinstruct.metrics.cider import cider
from vlinstruct.metrics.vqa_accuracy import is_lavis_match
from vlinstruct.mini.draw import draw
from vlinstruct.mini.phrasings import families
from vlinstruct.mini.questions import facts
from vlinstruct.mini.wording import answer_in, canonical, poor
from vlinstruct.mini.world import sample_scene
from vlinstruct.model import Model, load
from vlinstruct.settings import GenerationSettings, Select, Thresholds
from vlinstruct.values import ROLES, good

MODELS = ("mini", "mini-llama")
_CAPTIONS = ("caption", "description")
_CIDER_MAX, _PERCENT = 10.0, 100.0
_ODDS_SEED = 7  # of other pictures than those that chose
Split = Literal["dev", "test"]


def peoples_items(split: Split, num_pictures: int, seed: int) -> dict[str, list[Item]]:
    """Returns items by family: every wording of a part about `num_pictures` pictures of its own."""
    return {
        name: [
            Item(
                id=f"{name}-{place}-{picture}",
                task=name,
                load_picture=partial(draw, asked.scene),
                instructions={"canonical": asked.text},
                references=(answer_in("yes_no", asked.answer),),
            )
            for place, wording in enumerate(family.wordings[split])
            for picture, asked in enumerate(itertools.islice(pictures_for(name, wording, split, seed), num_pictures))
        ]
        for name, family in families().items()
    }


def answer(folder: Path, models: Sequence[str], *, split: Split, num_items: int, num_pictures: int, seed: int) -> None:
    """Answers everything with each model; what is there is kept."""
    tasks = {task.name: items(task, num_items, split=split, seed=seed) for task in TASKS}
    people = peoples_items(split, num_pictures, seed)
    for model in models:
        contender = Contender(name=model, fingerprint=find(model).fingerprint, load=partial(load, model, device="cpu"))
        for name, of_name in (("world", tasks), ("people", people)):
            (folder / model / name).mkdir(parents=True, exist_ok=True)
            generation = dict.fromkeys(of_name, GenerationSettings())
            run([contender], of_name, folder / model / name, batch_size=16, generation=generation)


def plant(folder: Path, models: Sequence[str], *, split: Split, num_hurting: int, seed: int) -> None:
    """Writes `num_hurting` records a model whose rewriting is another task's instruction and answered worse."""
    for model_name in models:
        model = load(model_name, device="cpu")
        (folder / model_name).mkdir(parents=True, exist_ok=True)
        num_left = num_hurting
        with (folder / model_name / "planted.jsonl").open("w", encoding="utf-8") as file:
            for number in itertools.count():
                records = _planted(model, random.Random(f"planted/{split}/{seed}/{number}"), split)
                for record in records[:num_left]:
                    file.write(json.dumps(record) + "\n")
                num_left -= min(num_left, len(records))
                if not num_left:
                    break


def _planted(model: Model, rng: random.Random, split: Split) -> list[dict[str, Any]]:
    """Returns what hurts among a batch of planted instructions: the two candidates of each with what a rule knows."""
    pictures, asked, planted, answers = [], [], [], []
    while len(pictures) < 16:
        scene = sample_scene(rng.randrange(2**32), split=split)
        all_facts = [fact for fact in facts(scene, rng) if not fact.candidates and fact.family != "caption"]
        fact = rng.choice(all_facts)
        others = [other for other in all_facts if other.family != fact.family and other.answer != fact.answer]
        if fact.family == "description" or not others:
            continue
        other = rng.choice(others)
        pictures.append(draw(scene))
        asked.append(poor(fact.family, fact.slots, rng, split))
        planted.append(canonical(other.family, other.slots))
        answers.append(fact.answer)
    seen = [good(outcome) for outcome in model.see_each(pictures)]
    pairs = [[first, second] for first, second in zip(asked, planted, strict=True)]
    scored = [good(row) for row in model.score_each(seen, pairs)]
    given = [good(answer) for answer in answers_to_judge(model.backend, seen, asked, Answering())]
    judgements = judge(model.backend, seen, given, [[text] for text in planted], Answering())
    records = []
    for row, right in enumerate(answers):
        (judgement,) = judgements[row]
        first, second = scored[row]
        judged = good(judgement)
        is_right = [
            is_lavis_match(answer_in("yes_no", text), answer_in("yes_no", right))
            for text in (given[row].text, judged.answer.text)
        ]
        if is_right == [True, False]:
            initial = {"text": first.text, "ias": first.ias, "certainty": given[row].certainty}
            rewritten = {"text": second.text, "ias": second.ias, "certainty": judged.answer.certainty}
            rewritten |= {"cross_nll": judged.cross_nll, "judged_answer": judged.answer.text}
            initial |= {"judged_answer": given[row].text}
            records.append({"initial": initial, "rewritten": rewritten})
    return records


def write_questions(folder: Path, *, split: Split, num_items: int, num_pictures: int, seed: int) -> None:
    """Writes questions for `vlinstruct bench --data`, a file a cell, captions apart; what ranks choices is left out."""
    world = [item for task in TASKS for item in items(task, num_items, split=split, seed=seed) if not item.candidates]
    people = [
        item
        for of_kind in peoples_items(split, num_pictures, seed).values()
        for item in random.Random(seed).sample(of_kind, min(num_items, len(of_kind)))
    ]
    captions = {task.name for task in TASKS if task.metric == "cider"} | {*_CAPTIONS}
    folder.mkdir(parents=True, exist_ok=True)
    for cell, of_cell, words in (
        ("canonical", world, "canonical"),
        ("poor", world, "poor"),
        ("people", people, "canonical"),
    ):
        for item in of_cell:
            name = f"{cell}_captions" if item.task in captions else cell
            picture = f"{cell}-{item.id}.png"
            item.load_picture().save(folder / picture)
            with (folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"image": picture, "question": item.instructions[words]}) + "\n")


def planted_taken(folder: Path, model: str, rule: Select, *, with_content: bool) -> tuple[int, int]:
    """Returns how many planted instructions that hurt a rule takes, and of how many."""
    num_taken, records = 0, (folder / model / "planted.jsonl").read_text(encoding="utf-8").splitlines()
    for line in records:
        record = json.loads(line)
        if with_content:
            changes = content_changes(record["initial"]["text"], record["rewritten"]["text"])
            record["rewritten"]["faults"] = changes
        decision = RULES[rule](candidates_in(record), BACKBONES[model].thresholds)
        num_taken += decision.chosen != "initial"
    return num_taken, len(records)


@dataclass(frozen=True, kw_only=True)
class Group:
    """A task or a kind of question in one cell.

    Args:
        records: an item's each, N.
        scores: of the answer to each candidate, by its role, from 0 to 1, (N,); of a ranking whether it is right.
        rows: which items each resample has, all of them first, (1 + R, N).
        task: with a metric that is no mean over items, which.
    """

    records: Sequence[Mapping[str, Any]]
    scores: Mapping[str, NDArray[np.float64]]
    rows: NDArray[np.int64]
    task: Task | None = None

    def of(self, roles: Sequence[str]) -> NDArray[np.float64]:
        """Returns the metric, in percent, where an item is answered with the candidate of a role, (1 + R,)."""
        if self.task is None:
            return _PERCENT * self.items(roles)[self.rows].mean(axis=1)
        answers = [record[role]["answer"] for record, role in zip(self.records, roles, strict=True)]
        values = item_values(self.task, self.records, answers, _rules([]))
        return _PERCENT * task_scores(values, self.rows, are_positive(self.records))

    def items(self, roles: Sequence[str]) -> NDArray[np.float64]:
        """Returns every item's score, (N,)."""
        return np.array([self.scores[role][row] for row, role in enumerate(roles)])


def world_groups(folder: Path) -> dict[str, list[Group]]:
    """Returns the groups of a model by kind of words, a task each."""
    by_name: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for record in read_records(folder):
        by_name[record["id"].rsplit("/", 2)[1], record["task"]].append(record)
    groups: dict[str, list[Group]] = defaultdict(list)
    for (words, name), records in by_name.items():
        task = next(task for task in TASKS if task.name == name)
        is_area = task.metric == "roc_auc"
        of_items = replace(task, metric="ranked_accuracy") if is_area else task
        scores = {}
        for role in ROLES:
            answers = [record[role]["answer"] for record in records]
            texts = (
                text for record, text in zip(records, answers, strict=True) for text in (*record["references"], text)
            )
            rules = _rules(texts if task.metric == "cider" else [])
            most = _CIDER_MAX if task.metric == "cider" else 1.0
            scores[role] = np.array(item_scores(of_items, records, answers, rules)) / most
        rows = resampled_rows(len(records), 0)
        groups[words].append(Group(records=records, scores=scores, rows=rows, task=task if is_area else None))
    return groups


def _rules(texts: Iterable[str]) -> TextRules:
    tokens = {text: ptb_tokens(text) for text in texts}
    return TextRules(normalizer="official", captions=Captions(tokens=tokens, tokenizer="built-in"))


def people_groups(folder: Path) -> list[Group]:
    """Returns the groups of a model, a kind of question each; resamples draw wordings, then the pictures of each."""
    by_kind: dict[str, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for record in read_records(folder):
        by_kind[record["task"]][record["id"].rsplit("-", 1)[0]].append(record)
    groups = []
    for of_wordings in by_kind.values():
        records = list(itertools.chain.from_iterable(of_wordings.values()))
        num_wordings, num_pictures = len(of_wordings), len(records) // len(of_wordings)
        rng = np.random.default_rng(0)
        drawn = rng.integers(num_wordings, size=(NUM_RESAMPLES, num_wordings, 1))
        pictures = rng.integers(num_pictures, size=(NUM_RESAMPLES, num_wordings, num_pictures))
        resampled = (drawn * num_pictures + pictures).reshape(NUM_RESAMPLES, -1)
        rows = np.concatenate([np.arange(len(records))[None], resampled])
        scores = {role: _people_scores(records, [record[role]["answer"] for record in records]) for role in ROLES}
        groups.append(Group(records=records, scores=scores, rows=rows))
    return groups


def _people_scores(records: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> NDArray[np.float64]:
    if records[0]["task"] in _CAPTIONS:
        references = [[ptb_tokens(record["references"][0])] for record in records]
        per_item = cider([ptb_tokens(text) for text in answers], references).per_item
        return np.array(per_item) / _CIDER_MAX
    return np.array(
        [
            float(is_lavis_match(answer_in("yes_no", text.strip(" .").lower()), record["references"][0]))
            for text, record in zip(answers, records, strict=True)
        ]
    )


def gain(groups: Sequence[Group], column: str, thresholds: Thresholds) -> NDArray[np.float64]:
    """Returns by how many points a column is above the user's own words, the mean over groups, (1 + R,)."""
    gains = [
        group.of([role_of(record, column, thresholds) for record in group.records])
        - group.of(["initial"] * len(group.records))
        for group in groups
    ]
    mean: NDArray[np.float64] = np.mean(gains, axis=0)
    return mean


def described(groups: Sequence[Group], column: str, thresholds: Thresholds) -> str:
    """Returns what a column changes: means over groups, in percent of all items."""
    figures = []
    for group in groups:
        roles = [role_of(record, column, thresholds) for record in group.records]
        plain, chosen = group.scores["initial"], group.items(roles)
        best = np.max([group.scores[role] for role in ROLES], axis=0) - plain
        unsure = np.array([not is_sure(record, thresholds) for record in group.records])
        figures.append(
            (
                np.mean([role != "initial" for role in roles]),
                np.mean(chosen < plain),
                np.mean(chosen > plain),
                np.mean(chosen - plain),
                best.mean(),
                (best * unsure).mean(),
                unsure.mean(),
            )
        )
    changed, worse, better, gained, oracle, behind_gate, unsure_share = _PERCENT * np.mean(figures, axis=0)
    return (
        f"unsure {unsure_share:5.1f}  changed {changed:5.2f}  worse {worse:5.2f}  better {better:5.2f}  "
        f"{gained:+.2f} of the oracle's {oracle:+.2f}, {behind_gate:+.2f} behind the gate"
    )


def report(folder: Path, models: Sequence[str]) -> None:
    """Prints a line per cell and rule; per cell of the guard that is the default, what it changes."""
    for model, rule, with_content in itertools.product(models, ("ias", "agree", "cross"), (False, True)):
        if (folder / model / "planted.jsonl").exists():
            num_taken, num_planted = planted_taken(folder, model, rule, with_content=with_content)
            checks = "with content checks" if with_content else "without"
            print(f"{model:10}  planted  {rule:5} takes {num_taken} of {num_planted} that hurt, {checks}")
    columns = [column for column in COLUMNS if column.startswith("AIO")]
    pooled: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for model in models:
        thresholds = BACKBONES[model].thresholds
        cells = world_groups(folder / model / "world") | {"people": people_groups(folder / model / "people")}
        for words, groups in cells.items():
            base = np.mean([group.of(["initial"] * len(group.records))[0] for group in groups])
            for column in columns:
                gains = gain(groups, column, thresholds)
                print(f"{model:10}  {words:11}  {column:10}  {base:6.2f}  {spelled(interval(gains), signed=True)}")
                if words == "people":
                    pooled[column].append(gains)
            print(f"{model:10}  {words:11}  {described(groups, 'AIO safe', thresholds)}")
    for column, of_models in pooled.items():
        both = spelled(interval(np.mean(of_models, axis=0)), signed=True)
        print(f"{'together':10}  {'people':11}  {column:10}  {'':6}  {both}")


Mended = list[tuple[float, Mapping[str, Any], str]]


def most_mended(folder: Path, model: str) -> dict[str, Mended]:
    """Returns by wording, what gains most first, `safe`'s gain with each picture, the record and the role it takes."""
    by_wording: dict[str, Mended] = defaultdict(list)
    for group in people_groups(folder / model / "people"):
        if group.records[0]["task"] in _CAPTIONS:
            continue
        roles = [role_of(record, "AIO safe", BACKBONES[model].thresholds) for record in group.records]
        differences = group.items(roles) - group.scores["initial"]
        for difference, record, role in zip(differences, group.records, roles, strict=True):
            by_wording[record["id"].rsplit("/", 1)[-1].rsplit("-", 1)[0]].append((difference, record, role))
    return dict(sorted(by_wording.items(), key=lambda pair: -sum(difference for difference, _, _ in pair[1])))


def show_examples(folder: Path, models: Sequence[str], num_shown: int = 12) -> None:
    """Prints how often `safe` mends and spoils answers to people's words, then what it mends most often."""
    for model in models:
        by_wording = most_mended(folder, model)
        every = [difference for rows in by_wording.values() for difference, _, _ in rows]
        print(
            f"{model}: {len(by_wording)} wordings, of {len(every):,} answers {sum(d > 0 for d in every)} mended, "
            f"{sum(d < 0 for d in every)} spoilt"
        )
        for name, rows in itertools.islice(by_wording.items(), num_shown):
            num_mended, num_spoilt = sum(d > 0 for d, _, _ in rows), sum(d < 0 for d, _, _ in rows)
            print(f"  {name}: {num_mended} mended, {num_spoilt} spoilt of {len(rows)}")
            for difference, record, role in rows:
                if difference > 0:
                    before, after = record["initial"], record[role]
                    print(
                        f"    {record['id']}: {before['text']!r} -> {before['answer']!r}, "
                        f"{after['text']!r} -> {after['answer']!r}"
                    )


def show_odds(folder: Path, models: Sequence[str], split: Split, num_shown: int = 8, num_pictures: int = 100) -> None:
    """Asks the wordings that `safe` mends most often about other pictures: the odds of an example that is shown."""
    for name in models:
        model = load(name, device="cpu")
        for wording in itertools.islice(most_mended(folder, name), num_shown):
            family, place = wording.rsplit("-", 1)
            asked = families()[family].wordings[split][int(place)]
            right = []
            for item in itertools.islice(pictures_for(family, asked, split, _ODDS_SEED), num_pictures):
                seen = model.see(draw(item.scene))
                answers = (model.ask(seen, item.text), model.ask(seen, item.text, optimize=True))
                right.append([is_same_answer(answer.text, item.answer) for answer in answers])
            before, after = np.array(right).T
            print(
                f"{name}: {asked.text!r}: of {len(right)} {before.sum()} right as typed, {after.sum()} optimized; "
                f"{(after & ~before).sum()} mended, {(before & ~after).sum()} spoilt"
            )


def show_guesses(folder: Path, models: Sequence[str]) -> None:
    """Prints how many answers to people's words lie below a certainty, and how often these and the others are wrong.

    Captions are left out: hardly one of them is right in everything.
    """
    for model in models:
        groups = [g for g in people_groups(folder / model / "people") if g.records[0]["task"] not in _CAPTIONS]
        wrong = 1 - np.concatenate([group.scores["initial"] for group in groups])
        certainty = np.array([record["initial"]["certainty"] for group in groups for record in group.records])
        for limit in (0.4, 0.5, 0.6, 0.7, 0.8):
            below = certainty < limit
            if not 0 < below.sum() < len(below) or not wrong.any():
                print(f"{model:10}  below {limit}: {below.sum()} of {len(below):,}, {wrong.sum():.0f} wrong in all")
                continue
            print(
                f"{model:10}  below {limit}: {_PERCENT * below.mean():5.2f} % of {len(below):,}; of these wrong "
                f"{_PERCENT * wrong[below].mean():5.1f} %, of the others {_PERCENT * wrong[~below].mean():5.2f} %; "
                f"{_PERCENT * wrong[below].sum() / wrong.sum():5.1f} % of all that is wrong"
            )


def main() -> None:
    """Answers, or reports on what was answered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("answer", "plant", "report", "examples", "odds", "guesses", "questions"))
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model", choices=MODELS, help="one of them; both if not given")
    parser.add_argument("--part", choices=("dev", "test"), default="dev")
    parser.add_argument("--items", type=int, default=750, help="of each task")
    parser.add_argument("--pictures", type=int, default=15, help="of each wording")
    parser.add_argument("--planted", type=int, default=1000, help="that hurt, of each model")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    models: Sequence[str] = [arguments.model] if arguments.model else MODELS
    drawn = {
        "split": arguments.part,
        "num_items": arguments.items,
        "num_pictures": arguments.pictures,
        "seed": arguments.seed,
    }
    if arguments.what == "plant":
        plant(arguments.output, models, split=arguments.part, num_hurting=arguments.planted, seed=arguments.seed)
    elif arguments.what == "answer":
        answer(arguments.output, models, **drawn)
    elif arguments.what == "questions":
        write_questions(arguments.output, **drawn)
    elif arguments.what == "examples":
        show_examples(arguments.output, models)
    elif arguments.what == "odds":
        show_odds(arguments.output, models, arguments.part)
    elif arguments.what == "guesses":
        show_guesses(arguments.output, models)
    else:
        report(arguments.output, models)


if __name__ == "__main__":
    main()

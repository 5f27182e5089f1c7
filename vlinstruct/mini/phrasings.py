"""How people put the instructions of each task family: well, in other words, and poorly. Data; `wording.py` uses it.

A family has one canonical instruction (what the rewriting aims at), paraphrases that are as good, and poor wordings in
several styles; every list is split by wording into train, dev and test, and training sees train only. Fields in braces
are the family's slots; what fills them survives every style untouched. To add a family, add a `Family` to FAMILIES and
its facts to `questions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "dev", "test"]
Style = Literal["verbose", "vague", "keywords", "polite", "misspelt", "sloppy"]
STYLES: tuple[Style, ...] = ("verbose", "vague", "keywords", "polite", "misspelt", "sloppy")


@dataclass(frozen=True, kw_only=True)
class Wordings:
    """Wordings of one kind, split so that no wording stands in two parts."""

    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]

    def of(self, split: Split) -> tuple[str, ...]:
        """Returns the part's wordings."""
        return {"train": self.train, "dev": self.dev, "test": self.test}[split]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A task and its instructions.

    Args:
        canonical: the best instruction.
        slots: names of the fields in every wording.
        paraphrases: as good as the canonical one.
        poor: wordings of the styles that change the words; the other styles are made from good wordings.
    """

    canonical: str
    paraphrases: Wordings
    poor: Mapping[Style, Wordings]
    slots: tuple[str, ...] = ()


FAMILIES: dict[str, Family] = {
    "colour": Family(
        canonical="What colour is the {thing}?",
        slots=("thing",),
        paraphrases=Wordings(
            train=(
                "What color is the {thing}?",
                "Which colour does the {thing} have?",
                "Name the colour of the {thing}.",
                "What is the colour of the {thing}?",
                "Question: What colour is the {thing}? Short answer:",
                "Tell me the colour of the {thing}.",
            ),
            dev=("In which colour is the {thing} drawn?",),
            test=("Give the colour of the {thing}.", "Which color is the {thing}?"),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like to know, if it is possible to see it in the picture, what colour the {thing} has.",
                    "Looking at the whole picture very carefully, what would you say is the colour of the {thing} "
                    "in it?",
                    "There is a {thing} in this picture and what I want to know about it is the colour that it has.",
                ),
                dev=("Please look at the picture and then say which of all colours the {thing} in it really has.",),
                test=("What I really want to find out about this picture is the colour which the {thing} has got.",),
            ),
            "vague": Wordings(
                train=("the {thing}, what colour or so?", "colour of that {thing} thing?"),
                dev=("some colour for the {thing}?",),
                test=("the {thing} has what kind of colour?",),
            ),
            "keywords": Wordings(
                train=("colour {thing}", "{thing} colour", "picture {thing} color answer"),
                dev=("{thing} color what",),
                test=("what colour {thing} picture",),
            ),
        },
    ),
    "shape": Family(
        canonical="What is the shape of the {colour} object?",
        slots=("colour",),
        paraphrases=Wordings(
            train=(
                "Which shape is {colour}?",
                "What shape does the {colour} object have?",
                "Name the {colour} shape.",
                "What is the {colour} object?",
                "Question: What is the shape of the {colour} object? Short answer:",
            ),
            dev=("What kind of shape is the {colour} one?",),
            test=("Which shape does the {colour} object have?", "Give the shape of the {colour} object."),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I see something {colour} in the picture and I would like you to say which shape it has.",
                    "Of all the objects in this picture, look at the {colour} one and say what its shape is.",
                    "If there is something {colour} in the picture, what would you say is the shape of it?",
                ),
                dev=("What I want to know is the shape that the one {colour} object in the picture has.",),
                test=("Please look for something {colour} in this picture and then say to me what shape it has.",),
            ),
            "vague": Wordings(
                train=("the {colour} thing, what is it?", "what about the {colour} one?"),
                dev=("that {colour} thing is what?",),
                test=("something {colour}, what shape or so?",),
            ),
            "keywords": Wordings(
                train=("shape {colour}", "{colour} object shape", "picture {colour} thing shape answer"),
                dev=("{colour} shape what",),
                test=("what shape {colour} picture",),
            ),
        },
    ),
    "count": Family(
        canonical="How many {things} are there?",
        slots=("things",),
        paraphrases=Wordings(
            train=(
                "How many {things} are in the picture?",
                "Count the {things}.",
                "What is the number of {things}?",
                "How many {things} can you see?",
                "Question: How many {things} are there? Short answer:",
            ),
            dev=("How many {things} does the picture show?",),
            test=("Give the number of {things}.", "Count the {things} in the picture."),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like you to go over the whole picture and say to me how many {things} there are in it.",
                    "Looking very carefully, what would you say is the number of all the {things} in this picture?",
                    "There may be some {things} in this picture and what I want to know is how many there are.",
                ),
                dev=("Please look at all of the picture and then count how many {things} there really are in it.",),
                test=("What I want to find out about this picture is just how many {things} there are to see.",),
            ),
            "vague": Wordings(
                train=("{things}, how many or so?", "some {things} there?"),
                dev=("the {things}, many?",),
                test=("what about the number of {things} or so?",),
            ),
            "keywords": Wordings(
                train=("count {things}", "number {things}", "picture {things} how many answer"),
                dev=("{things} count",),
                test=("how many {things} picture",),
            ),
        },
    ),
    "position": Family(
        canonical="Is the {first} {relation} the {second}?",
        slots=("first", "relation", "second"),
        paraphrases=Wordings(
            train=(
                "Does the picture show the {first} {relation} the {second}?",
                "Is the {first} {relation} the {second}? Answer yes or no.",
                "Can you see the {first} {relation} the {second}?",
                "Question: Is the {first} {relation} the {second}? Short answer:",
                "Is it true that the {first} is {relation} the {second}?",
            ),
            dev=("Yes or no: is the {first} {relation} the {second}?",),
            test=("In the picture, is the {first} {relation} the {second}?",),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like to know if it is really so that the {first} is {relation} the {second} "
                    "in the picture.",
                    "Looking at the whole picture very carefully, would you say the {first} is {relation} "
                    "the {second}?",
                ),
                dev=("What I want to know is if you see that the {first} is {relation} the {second} in it.",),
                test=(
                    "Please look at the picture and then say to me if the {first} is {relation} the {second} or not.",
                ),
            ),
            "vague": Wordings(
                train=(
                    "the {first}, {relation} the {second} or so?",
                    "is that {first} {relation} that {second} thing?",
                ),
                dev=("{first} is {relation} the {second} or what?",),
                test=("so the {first} is {relation} the {second}?",),
            ),
            "keywords": Wordings(
                train=("{first} {relation} {second} yes no", "{first} {relation} {second}"),
                dev=("true {first} {relation} {second}",),
                test=("picture {first} {relation} {second} answer",),
            ),
        },
    ),
    "exist": Family(
        canonical="Is there {thing} in the picture?",
        slots=("thing",),
        paraphrases=Wordings(
            train=(
                "Can you see {thing}?",
                "Does the picture show {thing}?",
                "Is there {thing}?",
                "Is there {thing} in the image? Answer yes or no.",
                "Question: Is there {thing} in the picture? Short answer:",
            ),
            dev=("Yes or no: is there {thing}?",),
            test=("Does the image contain {thing}?", "Do you see {thing} in the picture?"),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like to know if somewhere in this whole picture there is something like {thing}.",
                    "Looking at the whole picture very carefully, would you say that there is {thing} in it?",
                ),
                dev=("What I want to know is if there is really {thing} somewhere in this picture.",),
                test=("Please look at all of the picture and then say to me if there is {thing} in it or not.",),
            ),
            "vague": Wordings(
                train=("{thing} or so there?", "is some {thing} there?"),
                dev=("there is {thing} or what?",),
                test=("any {thing} there?",),
            ),
            "keywords": Wordings(
                train=("{thing} yes no", "see {thing}", "picture {thing} there answer"),
                dev=("there {thing}",),
                test=("{thing} in picture yes no",),
            ),
        },
    ),
    "reading": Family(
        canonical="What is written in the picture?",
        paraphrases=Wordings(
            train=(
                "What does the text say?",
                "Read the text in the picture.",
                "Which word is written in the image?",
                "What is written?",
                "What word is in the picture?",
                "What does the sign say?",
                "Question: What is written in the picture? Short answer:",
            ),
            dev=("Read the word in the image.",),
            test=("What does the picture say?", "What is written on the sign?"),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like you to look at the whole picture and say to me what text is written in it.",
                    "There is some text in this picture and what I want to know is what it says.",
                    "Looking very carefully at the picture, what would you say is the word that is written there?",
                ),
                dev=("Please look for the text that is in the picture and then read to me what it says.",),
                test=("What I want to find out about this picture is just which word it is that is written there.",),
            ),
            "vague": Wordings(
                train=("the text there?", "says what?", "what about the text?"),
                dev=("some text or so, what?",),
                test=("the word there is what?",),
            ),
            "keywords": Wordings(
                train=("read text", "text picture", "word written picture answer"),
                dev=("text read answer",),
                test=("picture word text",),
            ),
        },
    ),
    "number": Family(
        canonical="Which number is written in the picture?",
        paraphrases=Wordings(
            train=(
                "What number is in the picture?",
                "Read the number in the image.",
                "What is the number on the sign?",
                "Which number is written?",
                "Question: Which number is written in the picture? Short answer:",
            ),
            dev=("Read the number that is written in the picture.",),
            test=("What number does the picture show?", "Which number is on the sign?"),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like you to look at the whole picture and say to me what number is written in it.",
                    "There is some number in this picture and what I want to know is which one it is.",
                ),
                dev=("Please look for the number that is in the picture and then read it to me.",),
                test=("What I want to find out about this picture is just which number it is that is written there.",),
            ),
            "vague": Wordings(
                train=("the number there?", "some number, what?", "what about the number?"),
                dev=("number or so, what is it?",),
                test=("the number there is what?",),
            ),
            "keywords": Wordings(
                train=("read number", "number picture", "number written picture answer"),
                dev=("number read answer",),
                test=("picture number text",),
            ),
        },
    ),
    "written": Family(
        canonical='Is "{quote}" written in the picture?',
        slots=("quote",),
        paraphrases=Wordings(
            train=(
                'Does the picture say "{quote}"?',
                'Does the text say "{quote}"? Answer yes or no.',
                'Can you read "{quote}" in the picture?',
                'Question: Is "{quote}" written in the picture? Short answer:',
            ),
            dev=('Yes or no: is "{quote}" written there?',),
            test=('Does the sign say "{quote}"?',),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    'I would like to know if the text that is written in this whole picture is "{quote}" or not.',
                    'Looking at the picture very carefully, would you say that "{quote}" is what is written in it?',
                ),
                dev=('What I want to know is if there is really "{quote}" written somewhere in this picture.',),
                test=('Please look at the text in the picture and then say to me if it says "{quote}" or not.',),
            ),
            "vague": Wordings(
                train=('"{quote}" or so there?', 'says "{quote}"?'),
                dev=('it is "{quote}" or what?',),
                test=('so it says "{quote}"?',),
            ),
            "keywords": Wordings(
                train=('"{quote}" written yes no', 'text "{quote}"', 'picture "{quote}" text answer'),
                dev=('read "{quote}" yes no',),
                test=('"{quote}" in picture yes no',),
            ),
        },
    ),
    "options": Family(
        canonical="What colour is the {thing}? Options: {options}",
        slots=("thing", "options"),
        paraphrases=Wordings(
            train=(
                "Which of these is the colour of the {thing}? {options}",
                "Choose the colour of the {thing}: {options}",
                "Question: What colour is the {thing}? Options: {options} Answer:",
                "What color is the {thing}? {options}",
            ),
            dev=("Which colour does the {thing} have? Options: {options}",),
            test=("Name the colour of the {thing}. Options: {options}",),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like you to look at the {thing} and choose the one colour which it has of these {options}",
                    "There is a {thing} in this picture and what I want to know is which of these colours it has "
                    "{options}",
                ),
                dev=("Please look at the {thing} in the picture and then say which is its colour {options}",),
                test=("What I want to find out is just which of these is the colour that the {thing} has {options}",),
            ),
            "vague": Wordings(
                train=("the {thing}, which or so? {options}", "that {thing}, what? {options}"),
                dev=("some colour for the {thing}? {options}",),
                test=("the {thing} is what of these? {options}",),
            ),
            "keywords": Wordings(
                train=("colour {thing} options {options}", "{thing} {options}"),
                dev=("{thing} color choose {options}",),
                test=("options colour {thing} {options}",),
            ),
        },
    ),
    "caption": Family(
        canonical="Describe the picture in one short sentence.",
        paraphrases=Wordings(
            train=(
                "A short image description:",
                "Describe the image.",
                "What does the picture show?",
                "Write a short description of the image.",
                "What can you see in the picture?",
            ),
            dev=("A short description of the picture:",),
            test=("What is in the image?", "Describe what you see."),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like you to look at the whole picture and then write something short about what it shows.",
                    "Looking very carefully at the picture, what would you say are all the things that you see in it?",
                ),
                dev=("Please look at all of the picture and then say to me in some words what there is to see.",),
                test=("What I want to find out is just what there is in this picture, so please describe it to me.",),
            ),
            "vague": Wordings(
                train=("what is this?", "say something about it", "and the picture?"),
                dev=("what about this?",),
                test=("so what do you see or so?",),
            ),
            "keywords": Wordings(
                train=("description", "picture describe", "image short description answer"),
                dev=("describe image short",),
                test=("picture description sentence",),
            ),
        },
    ),
}

OPENINGS = Wordings(
    train=(
        "Hello!",
        "Hi there,",
        "Please tell me:",
        "Could you please help me?",
        "Dear assistant,",
        "Sorry to ask, but",
        "If you do not mind:",
        "Excuse me,",
        "I have a question.",
    ),
    dev=("Good morning,", "Would you be so kind:"),
    test=("Good day!", "I am sorry, but please tell me:"),
)
CLOSINGS = Wordings(
    train=(
        "Thank you very much!",
        "Thanks.",
        "Thanks a lot for your help!",
        "Please be so kind.",
        "I would be very happy about an answer.",
        "Take your time.",
    ),
    dev=("Many thanks!",),
    test=("Thank you for your time.", "Thanks in advance!"),
)
MISSPELLINGS: dict[str, Wordings] = {
    "what": Wordings(train=("waht", "wat", "whta"), dev=("wht",), test=("whatt", "hwat")),
    "which": Wordings(train=("wich", "whcih"), dev=("whihc",), test=("wihch",)),
    "colour": Wordings(train=("coluor", "colur", "collour"), dev=("coulor",), test=("colou", "clour")),
    "color": Wordings(train=("colr", "coler"), dev=("collor",), test=("colro",)),
    "shape": Wordings(train=("shpae", "shap", "sahpe"), dev=("shapee",), test=("shepe",)),
    "many": Wordings(train=("mny", "meny", "amny"), dev=("manny",), test=("mayn",)),
    "how": Wordings(train=("hwo", "hw"), dev=("ho",), test=("howw",)),
    "picture": Wordings(train=("pictrue", "picure", "pciture"), dev=("pictre",), test=("piture", "pitcure")),
    "image": Wordings(train=("iamge", "imge", "imagee"), dev=("imgae",), test=("imaeg",)),
    "written": Wordings(train=("writen", "wirtten", "writtn"), dev=("wrtten",), test=("writtten",)),
    "number": Wordings(train=("nubmer", "numbr", "nummber"), dev=("numer",), test=("numebr",)),
    "object": Wordings(train=("objct", "obejct"), dev=("ojbect",), test=("objetc",)),
    "describe": Wordings(train=("descibe", "discribe", "decribe"), dev=("desribe",), test=("describ",)),
    "description": Wordings(train=("discription", "descrption"), dev=("desription",), test=("descripton",)),
    "there": Wordings(train=("ther", "thre"), dev=("tehre",), test=("theer",)),
    "text": Wordings(train=("txt", "tetx"), dev=("texxt",), test=("tekst",)),
    "read": Wordings(train=("raed", "reed"), dev=("rread",), test=("redd",)),
    "word": Wordings(train=("wrod", "wrd"), dev=("owrd",), test=("wordd",)),
    "does": Wordings(train=("dose", "deos"), dev=("dos",), test=("doess",)),
    "the": Wordings(train=("teh", "hte"), dev=("th",), test=("tthe",)),
    "short": Wordings(train=("shrot", "shor"), dev=("shhort",), test=("sohrt",)),
    "question": Wordings(train=("quesiton", "qestion"), dev=("questoin",), test=("queston",)),
    "answer": Wordings(train=("anwser", "asnwer"), dev=("answr",), test=("ansewr",)),
    "options": Wordings(train=("opitons", "optons"), dev=("optoins",), test=("optionss",)),
}

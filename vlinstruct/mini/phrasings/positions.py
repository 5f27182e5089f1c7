"""Wordings of the families about how things stand to each other."""

from __future__ import annotations

from vlinstruct.mini.phrasings.wordings import Family, Wordings

POSITIONS: dict[str, Family] = {
    "position": Family(
        canonical="Is this statement true or false? The {first} is {relation} the {second}.",
        slots=("first", "relation", "second"),
        paraphrases=Wordings(
            train=(
                "True or false: The {first} is {relation} the {second}.",
                "Is it true that the {first} is {relation} the {second}? Answer true or false.",
                "The {first} is {relation} the {second}. Is this statement true or false?",
                "Say if this is true or false: The {first} is {relation} the {second}.",
                "Statement: The {first} is {relation} the {second}. True or false?",
                "Question: Is this statement true or false? The {first} is {relation} the {second}. Short answer:",
            ),
            dev=(
                "Is the statement that the {first} is {relation} the {second} true or false?",
                "Read the statement and say true or false. The {first} is {relation} the {second}.",
            ),
            test=(
                "The {first} is {relation} the {second}. Answer true or false.",
                "Which is it, true or false: the {first} is {relation} the {second}?",
            ),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like to know if it is really true or if it is false that the {first} is {relation} "
                    "the {second} in the picture.",
                    "Looking at the whole picture very carefully, would you say that it is true or false that "
                    "the {first} is {relation} the {second}?",
                    "There is a statement that the {first} is {relation} the {second} and what I want to know is "
                    "if it is true or false.",
                    "Could you look at the picture for me and then say true or false to this, the {first} is "
                    "{relation} the {second} in it?",
                ),
                dev=(
                    "What I want to find out about this picture is just if the statement is true or false which says "
                    "that the {first} is {relation} the {second}.",
                    "As I can not see the picture, I have to ask you if the {first} is {relation} the {second}, "
                    "true or false.",
                ),
                test=(
                    "Please look at the picture and say true if you see that the {first} is {relation} the {second}, "
                    "and if not, false.",
                    "I am not sure if the statement that the {first} stands {relation} the {second} is true, so "
                    "say true or false.",
                ),
            ),
            "vague": Wordings(
                train=(
                    "the {first}, {relation} the {second} or so, true?",
                    "is that {first} {relation} that {second} thing, true or not?",
                    "{first} {relation} the {second}, true or what?",
                ),
                dev=(
                    "true, the {first} is {relation} the {second} or so?",
                    "that {first}, is it true that it is {relation} the {second}?",
                ),
                test=(
                    "so {first} is {relation} the {second}, is that false?",
                    "the {first} would be {relation} the {second}, true?",
                ),
            ),
            "keywords": Wordings(
                train=(
                    "{first} {relation} {second} true false",
                    "true {first} {relation} {second}",
                    "statement {first} {relation} {second}",
                    "picture {first} {relation} {second} true answer",
                ),
                dev=(
                    "{first} {relation} {second} statement true",
                    "false or true {first} {relation} {second} picture",
                ),
                test=("say true false {first} {relation} {second}", "image {first} {relation} {second} true or false"),
            ),
        },
    ),
    "relation": Family(
        canonical="Which shape is {relation} the {thing}?",
        slots=("relation", "thing"),
        paraphrases=Wordings(
            train=(
                "What shape is {relation} the {thing}?",
                "Name the shape {relation} the {thing}.",
                "What is the shape of the object {relation} the {thing}?",
                "Which shape can you see {relation} the {thing}?",
                "Tell me the shape that is {relation} the {thing}.",
                "Question: Which shape is {relation} the {thing}? Short answer:",
            ),
            dev=(
                "Give the shape that you see {relation} the {thing}.",
                "Which shape does the object {relation} the {thing} have?",
            ),
            test=(
                "What kind of shape is there {relation} the {thing}?",
                "What is the shape that is {relation} the {thing}?",
            ),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like you to look for the object that is {relation} the {thing} and say which shape "
                    "it has.",
                    "Looking at the whole picture very carefully, what would you say is the shape that is {relation} "
                    "the {thing}?",
                    "There is something {relation} the {thing} in this picture and what I want to know about it is "
                    "the shape that it has.",
                    "If there is an object {relation} the {thing} in the picture, could you say to me what its "
                    "shape is?",
                ),
                dev=(
                    "What I want to find out about this picture is just which shape the object {relation} the {thing} "
                    "has got.",
                    "As I can not see the picture, I have to ask you for the shape of what is {relation} the {thing}.",
                ),
                test=(
                    "Please look at what you see {relation} the {thing} and then say which shape it really has.",
                    "There should be something {relation} the {thing} in the image, and the shape of it is what "
                    "I ask you for.",
                ),
            ),
            "vague": Wordings(
                train=(
                    "{relation} the {thing}, which shape or so?",
                    "what is that {relation} the {thing}?",
                    "the one {relation} the {thing}, what shape?",
                ),
                dev=("and {relation} the {thing} is what?", "what thing or so {relation} that {thing}?"),
                test=(
                    "something {relation} the {thing}, what is it?",
                    "which sort of thing is {relation} the {thing}?",
                ),
            ),
            "keywords": Wordings(
                train=(
                    "shape {relation} {thing}",
                    "{relation} {thing} which shape",
                    "object {relation} {thing}",
                    "picture {relation} {thing} shape answer",
                ),
                dev=("what shape {relation} {thing} picture", "name shape {relation} {thing}"),
                test=("{relation} {thing} shape what", "image {relation} {thing} name shape"),
            ),
        },
    ),
}

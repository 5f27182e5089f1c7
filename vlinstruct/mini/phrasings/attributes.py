"""Wordings of the families about what things look like, how many there are, and whether they are there."""

from __future__ import annotations

from vlinstruct.mini.phrasings.wordings import Family, Wordings

ATTRIBUTES: dict[str, Family] = {
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
            dev=("Give the colour of the {thing}.", "Which color is the {thing}?"),
            test=("In which colour is the {thing}?", "What is the {thing} in colour?"),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like to know, if it is possible to see it in the picture, what colour the {thing} has.",
                    "Looking at the whole picture very carefully, what would you say is the colour of the {thing} "
                    "in it?",
                    "There is a {thing} in this picture and what I want to know about it is the colour that it has.",
                    "If you look at the {thing} in this picture, could you say to me which colour it is?",
                ),
                dev=(
                    "What I really want to find out about this picture is the colour which the {thing} has got.",
                    "As I can not see the picture, I have to ask you for the colour of the {thing} in it.",
                ),
                test=(
                    "Please look at the picture and then say which of all colours the {thing} in it really has.",
                    "There should be a {thing} somewhere in the image, and the colour of it is what I ask you for.",
                ),
            ),
            "vague": Wordings(
                train=(
                    "the {thing}, what colour or so?",
                    "colour of that {thing} thing?",
                    "and the {thing}, what color?",
                ),
                dev=("the {thing} has what kind of colour?", "so which colour is that {thing}?"),
                test=("some colour for the {thing}?", "that {thing} there, colour?"),
            ),
            "keywords": Wordings(
                train=("colour {thing}", "{thing} colour", "picture {thing} color answer", "which colour {thing}"),
                dev=("what colour {thing} picture", "name color {thing}"),
                test=("{thing} color what", "image {thing} which color"),
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
            dev=("Which shape does the {colour} object have?", "Give the shape of the {colour} object."),
            test=("What kind of shape is the {colour} one?", "Say which shape the {colour} object is."),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I see something {colour} in the picture and I would like you to say which shape it has.",
                    "Of all the objects in this picture, look at the {colour} one and say what its shape is.",
                    "If there is something {colour} in the picture, what would you say is the shape of it?",
                    "Could you look for what is {colour} in this picture for me and name the kind of shape?",
                ),
                dev=(
                    "Please look for something {colour} in this picture and then say to me what shape it has.",
                    "As I can not see the picture, I have to ask you for the shape of the {colour} thing in it.",
                ),
                test=(
                    "What I want to know is the shape that the one {colour} object in the picture has.",
                    "There should be something {colour} somewhere in the image, and the shape of it is what I "
                    "ask you for.",
                ),
            ),
            "vague": Wordings(
                train=("the {colour} thing, what is it?", "what about the {colour} one?", "and {colour}, which shape?"),
                dev=("something {colour}, what shape or so?", "so what is {colour} there?"),
                test=("that {colour} thing is what?", "what sort of thing is {colour}?"),
            ),
            "keywords": Wordings(
                train=(
                    "shape {colour}",
                    "{colour} object shape",
                    "picture {colour} thing shape answer",
                    "which shape {colour}",
                ),
                dev=("what shape {colour} picture", "name {colour} object"),
                test=("{colour} shape what", "image {colour} which shape"),
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
            dev=("Give the number of {things}.", "Count the {things} in the picture."),
            test=("How many {things} does the picture show?", "Say how many {things} you see."),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like you to go over the whole picture and say to me how many {things} there are in it.",
                    "Looking very carefully, what would you say is the number of all the {things} in this picture?",
                    "There may be some {things} in this picture and what I want to know is how many there are.",
                    "Could you look for all the {things} in this picture for me and count them to give me the number?",
                ),
                dev=(
                    "What I want to find out about this picture is just how many {things} there are to see.",
                    "As I can not see the picture, I have to ask you for the number of {things} in it.",
                ),
                test=(
                    "Please look at all of the picture and then count how many {things} there really are in it.",
                    "There may be one or more {things} somewhere in the image, and the number of them is what I "
                    "ask you for.",
                ),
            ),
            "vague": Wordings(
                train=("{things}, how many or so?", "some number of {things}?", "and the {things}, how many?"),
                dev=("what about the number of {things} or so?", "so many {things} or what?"),
                test=("the {things}, many?", "{things}, what number?"),
            ),
            "keywords": Wordings(
                train=("count {things}", "number {things}", "picture {things} how many answer", "{things} number"),
                dev=("how many {things} picture", "see many {things} count"),
                test=("{things} many", "image {things} count how many"),
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
            dev=("Does the image contain {thing}?", "Do you see {thing} in the picture?"),
            test=("Yes or no: is there {thing}?", "Does the image show {thing} or not?"),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like to know if somewhere in this whole picture there is something like {thing}.",
                    "Looking at the whole picture very carefully, would you say that there is {thing} in it?",
                    "There may be {thing} in this picture or not, and what I want to know is if you can see it.",
                    "Could you go over the whole picture for me and say yes or no to the question if it shows {thing}?",
                ),
                dev=(
                    "Please look at all of the picture and then say to me if there is {thing} in it or not.",
                    "As I can not see the picture, I have to ask you if {thing} is somewhere in it.",
                ),
                test=(
                    "What I want to know is if there is really {thing} somewhere in this picture.",
                    "I am not sure if there is {thing} somewhere in the image, so is it there, yes or no?",
                ),
            ),
            "vague": Wordings(
                train=("{thing} or so there?", "and {thing}, is it there?", "{thing} somewhere or not?"),
                dev=("so is {thing} there?", "{thing}, can you see it or so?"),
                test=("there is {thing} or what?", "would that be {thing} there?"),
            ),
            "keywords": Wordings(
                train=("{thing} yes no", "see {thing}", "picture {thing} there answer", "{thing} in image"),
                dev=("{thing} in picture yes no", "picture show {thing}"),
                test=("there {thing}", "image {thing} yes or no"),
            ),
        },
    ),
    "same": Family(
        canonical="Do the {first} and the {second} have the same colour?",
        slots=("first", "second"),
        paraphrases=Wordings(
            train=(
                "Are the {first} and the {second} of the same colour?",
                "Is the colour of the {first} the same as the colour of the {second}?",
                "Does the {first} have the same color as the {second}?",
                "Do the {first} and the {second} have one colour? Answer yes or no.",
                "Can you see the same colour on the {first} and the {second}?",
                "Question: Do the {first} and the {second} have the same colour? Short answer:",
            ),
            dev=(
                "In the picture, is the same colour on the {first} and on the {second}?",
                "Is it true that the {first} has the colour of the {second}?",
            ),
            test=(
                "Yes or no: is the {first} of the same colour as the {second}?",
                "Is the colour of the {first} the same as that of the {second}?",
            ),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like to know if it is really so that the {first} and the {second} in the picture have "
                    "the same colour.",
                    "Looking at the whole picture very carefully, would you say that the {first} is of the same colour "
                    "as the {second}?",
                    "There is a {first} in this picture and there is a {second} and what I want to know is if they "
                    "have the same colour.",
                    "Could you look at the {first} and the {second} for me and say yes or no to the question if one "
                    "is like the other in colour?",
                ),
                dev=(
                    "What I want to find out about this picture is just if the colour that the {first} has got is "
                    "that of the {second} or not.",
                    "As I can not see the picture, I have to ask you if the colours of the {first} and the "
                    "{second} are the same.",
                ),
                test=(
                    "Please look at the colours of the {first} and the {second} and say if they are really the same.",
                    "I look at the {first} and then at the {second} in the image and ask you if their colour is "
                    "the same, yes or no.",
                ),
            ),
            "vague": Wordings(
                train=(
                    "the {first} and the {second}, same colour or so?",
                    "{first} and {second}, the same or not?",
                    "is that {first} like that {second} in colour?",
                ),
                dev=(
                    "so the {first} has the colour of the {second}?",
                    "the {first}, the colour of the {second} or so?",
                ),
                test=("{first} and {second}, one colour or what?", "{first} like {second} in colour or not?"),
            ),
            "keywords": Wordings(
                train=(
                    "same colour {first} {second}",
                    "{first} {second} same yes no",
                    "{first} {second} same colour",
                    "picture {first} {second} same color answer",
                ),
                dev=("color of {first} and {second} same yes no", "{first} colour like {second} picture"),
                test=("{first} same color {second}", "image {first} {second} colour same yes no"),
            ),
        },
    ),
}

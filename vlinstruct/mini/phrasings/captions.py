"""Wordings of the families that ask for a description."""

from __future__ import annotations

from vlinstruct.mini.phrasings.wordings import Family, Wordings

CAPTIONS: dict[str, Family] = {
    "caption": Family(
        canonical="Describe the picture in one short sentence.",
        paraphrases=Wordings(
            train=(
                "A short image description:",
                "Describe the image.",
                "What does the picture show?",
                "Describe the image in a short text.",
                "What can you see in the picture?",
                "Give me one short sentence about the picture.",
                "What is in the picture?",
                "What is there in the picture?",
                "Tell me what is in the picture.",
            ),
            dev=("What is in the image?", "Describe what you see."),
            test=("A short description of the picture:", "Say in one short sentence what you see."),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like you to look at the whole picture and then write something short about what it shows.",
                    "Looking very carefully at the picture, what would you say are all the things that you see in it?",
                    "There is a picture here and what I want to have is one short sentence that says what it is of.",
                    "If you can see this picture, could you write for me some short description of everything in it?",
                ),
                dev=(
                    "What I want to find out is just what there is in this picture, so please describe it to me.",
                    "As I can not see the image, I have to ask you for a sentence about what it shows.",
                ),
                test=(
                    "Please look at all of the picture and then say to me in some words what there is to see.",
                    "I am looking for a few words about this picture, so could you look at it for me and "
                    "describe it to me?",
                ),
            ),
            "vague": Wordings(
                train=("what is this?", "say something about it", "and the picture?", "what do we have here?"),
                dev=("so what do you see or so?", "tell me about this one"),
                test=("what about this?", "what have you got here?"),
            ),
            "keywords": Wordings(
                train=(
                    "description",
                    "picture describe",
                    "image short description answer",
                    "short sentence picture",
                ),
                dev=("picture description sentence", "sentence describe image"),
                test=("describe image short", "sentence about image"),
            ),
        },
    ),
    "description": Family(
        canonical="Describe the picture with the places of the objects.",
        paraphrases=Wordings(
            train=(
                "Describe the image and where the objects are.",
                "What is in the picture, and where is it?",
                "Say what the picture shows and in which places.",
                "Name the objects in the picture and their places.",
                "Write a description of the image with the place of each object.",
                "Question: What is where in the picture? Short answer:",
            ),
            dev=(
                "Which objects does the image show, and where are they?",
                "Give a description that says at which place each object is.",
            ),
            test=(
                "Describe where each object is in the picture.",
                "Describe what the image shows and name the places of all objects.",
            ),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like you to look at the whole picture and then write down each object with its place.",
                    "Looking very carefully at the picture, what would you say are the objects in it and their places?",
                    "There are some objects in this picture and what I want is a description with their places.",
                    "If you can see all the things in this picture, could you say for each one in which place it is?",
                ),
                dev=(
                    "What I want to find out is just which things the picture shows and the place of each of them.",
                    "As I can not see the image, I have to ask you for a sentence with objects and their places.",
                ),
                test=(
                    "Please look at all of the picture and then describe to me what there is and also where it is.",
                    "I am looking for a description of this picture in which you say of each object where it is.",
                ),
            ),
            "vague": Wordings(
                train=("what is where?", "the objects, where or so?", "say something about it and the places"),
                dev=("things and where they are or so?", "so where is everything?"),
                test=("and what is at which place?", "so the objects and where, or what?"),
            ),
            "keywords": Wordings(
                train=(
                    "description places",
                    "objects where picture",
                    "image describe object place answer",
                    "picture places",
                ),
                dev=("objects places picture", "where objects description"),
                test=("describe places image", "image objects where"),
            ),
        },
    ),
}

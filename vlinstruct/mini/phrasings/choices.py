"""Wordings of the families that offer answers to choose from, allow for none, or go on from an earlier answer.

Options are a wording's last words, or a full stop ends them: what follows must not read as a part of the last option.
"""

from __future__ import annotations

from vlinstruct.mini.phrasings.wordings import Family, Wordings

CHOICES: dict[str, Family] = {
    "options": Family(
        canonical="What is the {asked}? Options: {options}",
        slots=("asked", "options"),
        paraphrases=Wordings(
            train=(
                "Which of these is the {asked}? {options}",
                "Choose the {asked}: {options}",
                "Question: What is the {asked}? Options: {options}. Short answer:",
                "What is the {asked}? {options}",
                "The options are {options}. What is the {asked}?",
                "Name the {asked}, one of these: {options}",
            ),
            dev=("Which option is the {asked}? Options: {options}",),
            test=(
                "Give the {asked}. Options: {options}",
                "Here are some options: {options}. Say which of them is the {asked}.",
            ),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like you to look at the picture and choose the {asked} from all of these {options}",
                    "Looking very carefully at the picture, which of these would you say is the {asked} {options}",
                    "There are some options for the {asked} and what I want to know is which of these it is {options}",
                    "Could you look at the whole picture for me and say which one of these is the {asked} {options}",
                ),
                dev=("Please look at what the {asked} in the picture really is and then choose it here {options}",),
                test=(
                    "What I want to find out is just which of these is the {asked} that the picture shows {options}",
                    "As I can not see the picture, I have to ask you to choose the {asked} for me {options}",
                ),
            ),
            "vague": Wordings(
                train=(
                    "the {asked}, which or so? {options}",
                    "{asked}, what of these? {options}",
                    "and the {asked}? {options}",
                ),
                dev=("one of these for the {asked}? {options}",),
                test=("the {asked} is what of these? {options}", "so which {asked} or so? {options}"),
            ),
            "keywords": Wordings(
                train=(
                    "{asked} options {options}",
                    "{asked} {options}",
                    "choose {asked} {options}",
                    "picture {asked} answer options {options}",
                ),
                dev=("{asked} one of {options}",),
                test=("options for {asked} {options}", "which {asked} {options}"),
            ),
        },
    ),
    "choice": Family(
        canonical="What has the same colour as the {thing}? Options: {options}",
        slots=("thing", "options"),
        paraphrases=Wordings(
            train=(
                "Which of these has the same colour as the {thing}? {options}",
                "What is of the same colour as the {thing}? {options}",
                "Choose what has the colour of the {thing}: {options}",
                "The options are {options}. What has the same color as the {thing}?",
                "Name what is like the {thing} in colour: {options}",
                "Question: What has the same colour as the {thing}? Options: {options}. Short answer:",
            ),
            dev=("Which option has the same colour as the {thing}? Options: {options}",),
            test=(
                "What is as the {thing} in colour? Options: {options}",
                "Here are some options: {options}. Say which of them has the colour of the {thing}.",
            ),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like you to look at the {thing} in the picture and choose what has the same colour as it "
                    "from all of these {options}",
                    "Looking very carefully at the {thing}, which of these would you say is of the same colour "
                    "{options}",
                    "There is a {thing} in this picture and what I want to know is which of these has the same colour "
                    "{options}",
                    "Could you look at the colour of the {thing} for me and say what has the same one of these "
                    "{options}",
                ),
                dev=(
                    "Please look at the {thing} in the picture and then say which of these really has its colour "
                    "{options}",
                ),
                test=(
                    "What I want to find out is just which of these has got the same colour that the {thing} has "
                    "{options}",
                    "As I can not see the picture, I have to ask you what is like the {thing} in colour here {options}",
                ),
            ),
            "vague": Wordings(
                train=(
                    "same colour as the {thing}, which or so? {options}",
                    "what is like the {thing} in colour? {options}",
                    "which has that {thing} colour? {options}",
                ),
                dev=("the same as the {thing}, what of these? {options}",),
                test=(
                    "so what has the colour of that {thing}? {options}",
                    "like the {thing} in colour, which one? {options}",
                ),
            ),
            "keywords": Wordings(
                train=(
                    "same colour {thing} options {options}",
                    "{thing} same colour {options}",
                    "colour like {thing} choose {options}",
                    "picture {thing} same color answer options {options}",
                ),
                dev=("same color {thing} {options}",),
                test=("options same colour as {thing} {options}", "which like {thing} colour {options}"),
            ),
        },
    ),
    "answerable": Family(
        canonical="What is the {asked}? Say unanswerable if the picture does not show it.",
        slots=("asked",),
        paraphrases=Wordings(
            train=(
                "What is the {asked}? Answer unanswerable if it is not in the picture.",
                "Name the {asked}, or say unanswerable if the picture does not show it.",
                "Tell me the {asked} or say unanswerable.",
                "If the picture shows it, what is the {asked}? If not, say unanswerable.",
                "What is the {asked}? If you can not see it, the question is unanswerable.",
                "Question: What is the {asked}? Say unanswerable if the picture does not show it. Short answer:",
            ),
            dev=("What is the {asked}? If there is no such thing, say unanswerable.",),
            test=(
                "Give the {asked}, or answer unanswerable if you do not see it.",
                "Say unanswerable if it is not in the image: what is the {asked}?",
            ),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like to know what the {asked} is, but if it is not possible to see it in the picture "
                    "you can say unanswerable.",
                    "Looking at the whole picture very carefully, what would you say is the {asked}, or is the "
                    "question unanswerable?",
                    "There may be such a thing in this picture or not, so say to me what the {asked} is or that it is "
                    "unanswerable.",
                    "Could you look for the {asked} in the picture for me and say unanswerable if it is not there?",
                ),
                dev=(
                    "Please look at the picture and then say what the {asked} really is, or unanswerable when it does "
                    "not show this.",
                ),
                test=(
                    "What I want to find out is just the {asked}, and if the picture does not have it, then say that "
                    "it is unanswerable.",
                    "As I can not see the picture, I have to ask you for the {asked}, or for unanswerable if "
                    "you do not see it.",
                ),
            ),
            "vague": Wordings(
                train=(
                    "the {asked}, or is it unanswerable?",
                    "{asked} or so, if it is there?",
                    "and the {asked}, unanswerable or not?",
                ),
                dev=("some {asked} or unanswerable?",),
                test=("so the {asked} or what, unanswerable?", "the {asked}, or is it not there?"),
            ),
            "keywords": Wordings(
                train=(
                    "{asked} unanswerable",
                    "{asked} or unanswerable",
                    "unanswerable {asked}",
                    "picture {asked} unanswerable answer",
                ),
                dev=("{asked} answer unanswerable",),
                test=("what {asked} unanswerable picture", "{asked} not there unanswerable"),
            ),
        },
    ),
    "dialogue": Family(
        canonical="Is there {thing}? Yes. What colour is it?",
        slots=("thing",),
        paraphrases=Wordings(
            train=(
                "Is there {thing} in the picture? Yes. What colour is it?",
                "Can you see {thing}? Yes. Which colour does it have?",
                "Is there {thing}? Yes, there is. What is its colour?",
                "Does the picture show {thing}? Yes. Tell me its colour.",
                "There is {thing} in the image. What color is it?",
                "Question: Is there {thing}? Answer: Yes. Question: What colour is it? Answer:",
            ),
            dev=("Is {thing} there? Yes. Name its colour.",),
            test=(
                "Do you see {thing}? Yes. Which color is it?",
                "Does the image contain {thing}? Yes, it does. What colour does it have?",
            ),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like to know if there is {thing} in the picture, and as you say yes to that, what colour "
                    "does it have?",
                    "You say yes, there is {thing} in this picture, and what I want to know about it now is the colour "
                    "that it has.",
                    "Looking very carefully you say that yes, you see {thing}, so could you say to me which colour "
                    "it is?",
                    "If I ask if there is {thing} you say yes, and now what would you say is the colour of it?",
                ),
                dev=(
                    "So yes, there is {thing}, and now please look at it and say which of all colours it really has.",
                ),
                test=(
                    "What I want to find out, now that you say yes, there is {thing}, is just the colour which it "
                    "has got.",
                    "As I can not see the picture, I ask if there is {thing}, you say yes, and so I have to ask "
                    "for its colour.",
                ),
            ),
            "vague": Wordings(
                train=(
                    "so there is {thing}, what colour or so?",
                    "{thing}, yes, and its colour?",
                    "yes, {thing}, but what colour is that?",
                ),
                dev=("{thing}, yes, in what colour?",),
                test=("you say yes to {thing}, so which colour?", "and if there is {thing}, yes, some colour?"),
            ),
            "keywords": Wordings(
                train=(
                    "{thing} yes colour",
                    "there {thing} yes what colour",
                    "{thing} there colour it",
                    "picture {thing} yes color answer",
                ),
                dev=("see {thing} yes colour",),
                test=("{thing} there yes color what", "is {thing} yes which colour"),
            ),
        },
    ),
}

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
            dev=(
                "Give the {asked}. Options: {options}",
                "Here are some options: {options}. Say which of them is the {asked}.",
            ),
            test=(
                "Which option is the {asked}? Options: {options}",
                "Which is the {asked} in the image? Options: {options}",
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
                dev=(
                    "What I want to find out is just which of these is the {asked} that the picture shows {options}",
                    "As I can not see the picture, I have to ask you to choose the {asked} for me {options}",
                ),
                test=(
                    "Please look at what the {asked} in the picture really is and then choose it here {options}",
                    "There are some options for the {asked} in the image, and the right one is what I ask you "
                    "for {options}",
                ),
            ),
            "vague": Wordings(
                train=(
                    "the {asked}, which or so? {options}",
                    "{asked}, what of these? {options}",
                    "and the {asked}? {options}",
                ),
                dev=("the {asked} is what of these? {options}", "so which {asked} or so? {options}"),
                test=("one of these for the {asked}? {options}", "{asked}, would that be one of these? {options}"),
            ),
            "keywords": Wordings(
                train=(
                    "{asked} options {options}",
                    "{asked} {options}",
                    "choose {asked} {options}",
                    "picture {asked} answer options {options}",
                ),
                dev=("options for {asked} {options}", "which {asked} {options}"),
                test=("{asked} one of {options}", "image {asked} right option {options}"),
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
            dev=(
                "What is as the {thing} in colour? Options: {options}",
                "Here are some options: {options}. Say which of them has the colour of the {thing}.",
            ),
            test=(
                "Which option has the same colour as the {thing}? Options: {options}",
                "Which of the options is in colour like the {thing}? {options}",
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
                    "What I want to find out is just which of these has got the same colour that the {thing} has "
                    "{options}",
                    "As I can not see the picture, I have to ask you what is like the {thing} in colour here {options}",
                ),
                test=(
                    "Please look at the {thing} in the picture and then say which of these really has its colour "
                    "{options}",
                    "There should be a {thing} in the image, and what of these is the same in colour is what I "
                    "ask you for {options}",
                ),
            ),
            "vague": Wordings(
                train=(
                    "same colour as the {thing}, which or so? {options}",
                    "what is like the {thing} in colour? {options}",
                    "which has that {thing} colour? {options}",
                ),
                dev=(
                    "so what has the colour of that {thing}? {options}",
                    "like the {thing} in colour, which one? {options}",
                ),
                test=(
                    "the same as the {thing}, what of these? {options}",
                    "what would be like the {thing} in colour? {options}",
                ),
            ),
            "keywords": Wordings(
                train=(
                    "same colour {thing} options {options}",
                    "{thing} same colour {options}",
                    "colour like {thing} choose {options}",
                    "picture {thing} same color answer options {options}",
                ),
                dev=("options same colour as {thing} {options}", "which like {thing} colour {options}"),
                test=("same color {thing} {options}", "image {thing} like in color {options}"),
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
            dev=(
                "Give the {asked}, or answer unanswerable if you do not see it.",
                "Say unanswerable if it is not in the image: what is the {asked}?",
            ),
            test=(
                "What is the {asked}? If there is no such thing, say unanswerable.",
                "Say what the {asked} is, or that it is unanswerable.",
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
                    "What I want to find out is just the {asked}, and if the picture does not have it, then say that "
                    "it is unanswerable.",
                    "As I can not see the picture, I have to ask you for the {asked}, or for unanswerable if "
                    "you do not see it.",
                ),
                test=(
                    "Please look at the picture and then say what the {asked} really is, or unanswerable when it does "
                    "not show this.",
                    "I am not sure if you can see the {asked} in the image, so answer that or say that it is "
                    "unanswerable.",
                ),
            ),
            "vague": Wordings(
                train=(
                    "the {asked}, or is it unanswerable?",
                    "{asked} or so, if it is there?",
                    "and the {asked}, unanswerable or not?",
                ),
                dev=("so the {asked} or what, unanswerable?", "the {asked}, or is it not there?"),
                test=("some {asked} or unanswerable?", "would you know the {asked}, or is it unanswerable?"),
            ),
            "keywords": Wordings(
                train=(
                    "{asked} unanswerable",
                    "{asked} or unanswerable",
                    "unanswerable {asked}",
                    "picture {asked} unanswerable answer",
                ),
                dev=("what {asked} unanswerable picture", "{asked} not there unanswerable"),
                test=("{asked} answer unanswerable", "image {asked} or say unanswerable"),
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
            dev=(
                "Do you see {thing}? Yes. Which color is it?",
                "Does the image contain {thing}? Yes, it does. What colour does it have?",
            ),
            test=(
                "Is {thing} there? Yes. Name its colour.",
                "Is {thing} in the picture? Yes, it is. Say what colour it has.",
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
                    "What I want to find out, now that you say yes, there is {thing}, is just the colour which it "
                    "has got.",
                    "As I can not see the picture, I ask if there is {thing}, you say yes, and so I have to ask "
                    "for its colour.",
                ),
                test=(
                    "So yes, there is {thing}, and now please look at it and say which of all colours it really has.",
                    "I ask you if there is {thing} in the image, you answer that yes, there is, and so I ask for "
                    "its colour.",
                ),
            ),
            "vague": Wordings(
                train=(
                    "so there is {thing}, what colour or so?",
                    "{thing}, yes, and its colour?",
                    "yes, {thing}, but what colour is that?",
                ),
                dev=("you say yes to {thing}, so which colour?", "and if there is {thing}, yes, some colour?"),
                test=("{thing}, yes, in what colour?", "yes to {thing}, then its colour?"),
            ),
            "keywords": Wordings(
                train=(
                    "{thing} yes colour",
                    "there {thing} yes what colour",
                    "{thing} there colour it",
                    "picture {thing} yes color answer",
                ),
                dev=("{thing} there yes color what", "is {thing} yes which colour"),
                test=("see {thing} yes colour", "image {thing} yes which color"),
            ),
        },
    ),
}

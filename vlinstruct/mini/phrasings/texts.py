"""Wordings of the families about the printed text."""

from __future__ import annotations

from vlinstruct.mini.phrasings.wordings import Family, Wordings

TEXTS: dict[str, Family] = {
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
                "What does it say in the image?",
                "Tell me what the text in the picture says.",
                "What can you read in the picture?",
                "Name the word that is written.",
                "Question: What is written in the picture? Short answer:",
            ),
            dev=("What does the picture say?", "What is written on the sign?"),
            test=("Read the word in the image.", "Which text can you see in the image?"),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like you to look at the whole picture and say to me what text is written in it.",
                    "There is some text in this picture and what I want to know is what it says.",
                    "Looking very carefully at the picture, what would you say is the word that is written there?",
                    "Could you look for the text in this picture for me and say which word you can read there?",
                ),
                dev=(
                    "What I want to find out about this picture is just which word it is that is written there.",
                    "As I can not see the picture, I have to ask you to read the text in it to me.",
                ),
                test=(
                    "Please look for the text that is in the picture and then read to me what it says.",
                    "There should be a word somewhere in the image, and what I ask you is to read it to me.",
                ),
            ),
            "vague": Wordings(
                train=("the text there?", "says what?", "what about the text?", "and it says?"),
                dev=("the word there is what?", "so what does it say there?"),
                test=("some text or so, what?", "can you read that or what?"),
            ),
            "keywords": Wordings(
                train=("read text", "text picture", "word written picture answer", "what written"),
                dev=("picture word text", "read word image"),
                test=("text read answer", "image say word"),
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
                "Tell me the number in the picture.",
                "What number can you see?",
                "Question: Which number is written in the picture? Short answer:",
            ),
            dev=("What number does the picture show?", "Which number is on the sign?"),
            test=("Read the number that is written in the picture.", "Say which number you see in the image."),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I would like you to look at the whole picture and say to me what number is written in it.",
                    "There is some number in this picture and what I want to know is which one it is.",
                    "Looking very carefully at the picture, what would you say is the number that is written there?",
                    "Could you look for the number in this picture for me and say which one you can read there?",
                ),
                dev=(
                    "What I want to find out about this picture is just which number it is that is written there.",
                    "As I can not see the picture, I have to ask you to read the number in it to me.",
                ),
                test=(
                    "Please look for the number that is in the picture and then read it to me.",
                    "There should be a number somewhere in the image, and what I ask you is to read it to me.",
                ),
            ),
            "vague": Wordings(
                train=("the number there?", "some number, what?", "what about the number?"),
                dev=("the number there is what?", "so it says which number?"),
                test=("number or so, what is it?", "what sort of number is that?"),
            ),
            "keywords": Wordings(
                train=("read number", "number picture", "number written picture answer", "which number"),
                dev=("picture number text", "read number image"),
                test=("number read answer", "image say number"),
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
                'Is the text in the image "{quote}"?',
                'Tell me if it says "{quote}" in the picture.',
                'Is the word "{quote}" on the sign?',
                'Does the image say "{quote}"?',
                'Question: Is "{quote}" written in the picture? Short answer:',
            ),
            dev=('Does the sign say "{quote}"?', 'Is it true that the picture says "{quote}"?'),
            test=('Yes or no: is "{quote}" written there?', 'Is the text in the picture "{quote}" or not?'),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    'I would like to know if the text that is written in this whole picture is "{quote}" or not.',
                    'Looking at the picture very carefully, would you say that "{quote}" is what is written in it?',
                    'There is some text in this picture and what I want to know is if you can read "{quote}" there.',
                    'Could you read the text for me and say yes or no to the question if it is "{quote}"?',
                ),
                dev=(
                    'Please look at the text in the picture and then say to me if it says "{quote}" or not.',
                    'As I can not see the picture, I have to ask you if "{quote}" is the text in it.',
                ),
                test=(
                    'What I want to know is if there is really "{quote}" written somewhere in this picture.',
                    'I am not sure if the sign in the image says "{quote}", so is that what is written there, '
                    "yes or no?",
                ),
            ),
            "vague": Wordings(
                train=('"{quote}" or so there?', 'says "{quote}"?', 'the text, "{quote}" or not?'),
                dev=('so it says "{quote}"?', '"{quote}", can you read it or so?'),
                test=('it is "{quote}" or what?', 'would that be "{quote}"?'),
            ),
            "keywords": Wordings(
                train=('"{quote}" written yes no', 'text "{quote}"', 'picture "{quote}" text answer', 'read "{quote}"'),
                dev=('"{quote}" in picture yes no', 'sign say "{quote}"'),
                test=('read "{quote}" yes no', 'image "{quote}" yes or no'),
            ),
        },
    ),
    "ocr": Family(
        canonical="OCR tokens: {tokens}. What is written in the picture?",
        slots=("tokens",),
        paraphrases=Wordings(
            train=(
                "OCR tokens: {tokens}. Which of them is written in the image?",
                "OCR tokens: {tokens}. Read the text in the picture.",
                "What is written in the picture? OCR tokens: {tokens}.",
                "Which of these tokens is in the picture? {tokens}.",
                "The tokens are {tokens}. What does the text say?",
                "Of the tokens {tokens}, which one does the text say?",
                "Question: What is written in the picture? OCR tokens: {tokens}. Short answer:",
            ),
            dev=(
                "Here are some tokens: {tokens}. Which one does the image show?",
                "Of the OCR tokens {tokens}, what is written on the sign?",
            ),
            test=("OCR tokens: {tokens}. What does the picture say?", "Read the picture. The OCR tokens are {tokens}."),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    "I have some OCR tokens, {tokens}, and I would like you to look at the picture and say which one "
                    "is written in it.",
                    "Looking very carefully at the picture, which of the tokens {tokens} would you say is the text "
                    "in it?",
                    "There is some text in this picture and what I want to know is which of the tokens {tokens} it is.",
                    "Could you read the text in the picture for me, for which the OCR tokens are {tokens}?",
                ),
                dev=(
                    "What I want to find out is just which of the OCR tokens {tokens} it is that is written there.",
                    "As I can not see the picture, I have to ask you to read which of these tokens is in it, {tokens}.",
                ),
                test=(
                    "Please look at the tokens {tokens} and then read to me which of them the picture really says.",
                    "There are the OCR tokens {tokens} for the image, and which of them is written there is what "
                    "I ask you for.",
                ),
            ),
            "vague": Wordings(
                train=(
                    "{tokens}, which one or so is written?",
                    "tokens {tokens}, what is there?",
                    "the text, some of {tokens}?",
                ),
                dev=("so which token, {tokens}?", "{tokens} or so, what does it say?"),
                test=("one of {tokens} is written, what?", "what would it say of {tokens}?"),
            ),
            "keywords": Wordings(
                train=(
                    "OCR {tokens} text",
                    "tokens {tokens} written",
                    "read text OCR tokens {tokens}",
                    "picture tokens {tokens} answer",
                ),
                dev=("OCR tokens {tokens} picture word", "{tokens} tokens read"),
                test=("text tokens {tokens} what", "image {tokens} which token"),
            ),
        },
    ),
    "meme": Family(
        canonical='This is a picture with "{quote}" written on it. Does the text fit the picture?',
        slots=("quote",),
        paraphrases=Wordings(
            train=(
                'The picture has "{quote}" written on it. Does the text fit?',
                'Does the text "{quote}" fit the picture?',
                'There is "{quote}" written on the image. Does it fit? Answer yes or no.',
                'Does "{quote}" fit what the picture shows?',
                'Do the picture and the text "{quote}" on it fit?',
                'Question: This is a picture with "{quote}" written on it. Does the text fit it? Short answer:',
            ),
            dev=(
                'This image says "{quote}". Does the text fit what it shows?',
                'Is it true that the text "{quote}" fits the picture?',
            ),
            test=(
                'Yes or no: does the word "{quote}" fit this picture?',
                'Is "{quote}" a text that does fit the picture it is on?',
            ),
        ),
        poor={
            "verbose": Wordings(
                train=(
                    'I would like to know if the text "{quote}" that is written on this picture really fits what the '
                    "picture shows.",
                    'Looking at the picture very carefully, would you say that the text "{quote}" on it does fit '
                    "the objects in it?",
                    'There is "{quote}" written on this picture and what I want to know is if it fits something that '
                    "you see in it.",
                    "Could you look at all the objects in the picture for me and say yes or no to the question if the "
                    'word "{quote}" does fit?',
                ),
                dev=(
                    'What I want to find out about this picture is just if the word "{quote}" on it does fit the '
                    "things that there are to see.",
                    'As I can not see the picture, I have to ask you if "{quote}" is a text that fits it.',
                ),
                test=(
                    'Please look at the picture with "{quote}" written on it and say if this does really fit or not.',
                    'I am not sure if "{quote}" is a good text for this image, so does it fit what is there, yes '
                    "or no?",
                ),
            ),
            "vague": Wordings(
                train=('"{quote}" and the picture, fit or so?', 'does that "{quote}" fit?', '"{quote}" fits or not?'),
                dev=('so "{quote}" fits the picture?', '"{quote}" on that, is it a fit or so?'),
                test=('and "{quote}", does it fit or what?', 'would "{quote}" fit or not?'),
            ),
            "keywords": Wordings(
                train=(
                    '"{quote}" fit yes no',
                    'text "{quote}" fit',
                    'fit "{quote}" picture',
                    'picture with "{quote}" fit answer',
                ),
                dev=('image with "{quote}" fits yes no', 'word "{quote}" fit image'),
                test=('read "{quote}" fit', 'image "{quote}" fit yes or no'),
            ),
        },
    ),
}

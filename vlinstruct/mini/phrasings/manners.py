"""What the styles put around a good wording, and how they misspell it."""

from __future__ import annotations

from vlinstruct.mini.phrasings.wordings import Wordings

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
CASUAL_OPENINGS = Wordings(
    train=("yo", "hey", "ok so", "lol", "hey man", "umm"),
    dev=("hey you", "well lol"),
    test=("yo man", "ok hey"),
)
CASUAL_CLOSINGS = Wordings(
    train=("thx", "lol", "pls", "thx man", "ok", "haha"),
    dev=("ok thx", "pls lol"),
    test=("pls thx", "haha ok"),
)
# Officialese is a style of the test part alone, so there is nothing to split.
OFFICIAL_OPENINGS = (
    "You are hereby requested to state the following:",
    "With regard to the picture at hand, an answer in writing is required:",
    "The office would be obliged to receive information on the following matter:",
)
MISSPELLINGS: dict[str, Wordings] = {
    "what": Wordings(train=("waht", "wat", "whta"), dev=("wht",), test=("whatt", "hwat")),
    "which": Wordings(train=("wich", "whcih"), dev=("whihc",), test=("wihch",)),
    "where": Wordings(train=("wehre", "wher"), dev=("whre",), test=("hwere",)),
    "colour": Wordings(train=("coluor", "colur", "collour"), dev=("coulor",), test=("colou", "clour")),
    "color": Wordings(train=("colr", "coler"), dev=("collor",), test=("colro",)),
    "same": Wordings(train=("smae", "saem"), dev=("sme",), test=("samee",)),
    "shape": Wordings(train=("shpae", "shap", "sahpe"), dev=("shapee",), test=("shepe",)),
    "many": Wordings(train=("mny", "meny", "amny"), dev=("manny",), test=("mayn",)),
    "how": Wordings(train=("hwo", "hw"), dev=("ho",), test=("howw",)),
    "count": Wordings(train=("conut", "cuont"), dev=("coutn",), test=("cont",)),
    "picture": Wordings(train=("pictrue", "picure", "pciture"), dev=("pictre",), test=("piture", "pitcure")),
    "image": Wordings(train=("iamge", "imge", "imagee"), dev=("imgae",), test=("imaeg",)),
    "written": Wordings(train=("writen", "wirtten", "writtn"), dev=("wrtten",), test=("writtten",)),
    "number": Wordings(train=("nubmer", "numbr", "nummber"), dev=("numer",), test=("numebr",)),
    "object": Wordings(train=("objct", "obejct"), dev=("ojbect",), test=("objetc",)),
    "objects": Wordings(train=("objcts", "obejcts"), dev=("ojbects",), test=("objetcs",)),
    "places": Wordings(train=("plcaes", "palces"), dev=("placse",), test=("plases",)),
    "describe": Wordings(train=("descibe", "discribe", "decribe"), dev=("desribe",), test=("describ",)),
    "description": Wordings(train=("discription", "descrption"), dev=("desription",), test=("descripton",)),
    "statement": Wordings(train=("statment", "staetment"), dev=("statemnt",), test=("sttement",)),
    "true": Wordings(train=("ture", "treu"), dev=("tru",), test=("trrue",)),
    "false": Wordings(train=("flase", "fasle"), dev=("fals",), test=("falsee",)),
    "unanswerable": Wordings(train=("unanswerble", "unaswerable"), dev=("unanserable",), test=("unanswreable",)),
    "there": Wordings(train=("ther", "thre"), dev=("tehre",), test=("theer",)),
    "see": Wordings(train=("seee", "ese"), dev=("sse",), test=("sie",)),
    "text": Wordings(train=("txt", "tetx"), dev=("texxt",), test=("tekst",)),
    "tokens": Wordings(train=("tokns", "toekns"), dev=("tokesn",), test=("tokenns",)),
    "read": Wordings(train=("raed", "reed"), dev=("rread",), test=("redd",)),
    "word": Wordings(train=("wrod", "wrd"), dev=("owrd",), test=("wordd",)),
    "fit": Wordings(train=("fti", "fitt"), dev=("ift",), test=("fiit",)),
    "does": Wordings(train=("dose", "deos"), dev=("dos",), test=("doess",)),
    "the": Wordings(train=("teh", "hte"), dev=("th",), test=("tthe",)),
    "short": Wordings(train=("shrot", "shor"), dev=("shhort",), test=("sohrt",)),
    "question": Wordings(train=("quesiton", "qestion"), dev=("questoin",), test=("queston",)),
    "answer": Wordings(train=("anwser", "asnwer"), dev=("answr",), test=("ansewr",)),
    "options": Wordings(train=("opitons", "optons"), dev=("optoins",), test=("optionss",)),
    "choose": Wordings(train=("chose", "choos"), dev=("choosse",), test=("hcoose",)),
    "name": Wordings(train=("nmae", "naem"), dev=("nam",), test=("nname",)),
}

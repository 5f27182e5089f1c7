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
    dev=("Good day!", "I am sorry, but please tell me:"),
    test=("Good morning,", "Would you be so kind:", "Good evening,"),
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
    dev=("Thank you for your time.", "Thanks in advance!"),
    test=("Many thanks!", "I thank you."),
)
CASUAL_OPENINGS = Wordings(
    train=("yo", "hey", "ok so", "lol", "hey man", "umm"),
    dev=("yo man", "ok hey"),
    test=("hey you", "well lol"),
)
CASUAL_CLOSINGS = Wordings(
    train=("thx", "lol", "pls", "thx man", "ok", "haha"),
    dev=("pls thx", "haha ok"),
    test=("ok thx", "pls lol"),
)
# Officialese is a style of the dev part alone, so there is nothing to split.
OFFICIAL_OPENINGS = (
    "You are hereby requested to state the following:",
    "With regard to the picture at hand, an answer in writing is required:",
    "The office would be obliged to receive information on the following matter:",
)
MISSPELLINGS: dict[str, Wordings] = {
    "what": Wordings(train=("waht", "wat", "whta"), dev=("whatt", "hwat"), test=("wht",)),
    "which": Wordings(train=("wich", "whcih"), dev=("wihch",), test=("whihc",)),
    "where": Wordings(train=("wehre", "wher"), dev=("hwere",), test=("whre",)),
    "colour": Wordings(train=("coluor", "colur", "collour"), dev=("colou", "clour"), test=("coulor",)),
    "color": Wordings(train=("colr", "coler"), dev=("colro",), test=("collor",)),
    "same": Wordings(train=("smae", "saem"), dev=("samee",), test=("sme",)),
    "shape": Wordings(train=("shpae", "shap", "sahpe"), dev=("shepe",), test=("shapee",)),
    "many": Wordings(train=("mny", "meny", "amny"), dev=("mayn",), test=("manny",)),
    "how": Wordings(train=("hwo", "hw"), dev=("howw",), test=("ho",)),
    "count": Wordings(train=("conut", "cuont"), dev=("cont",), test=("coutn",)),
    "picture": Wordings(train=("pictrue", "picure", "pciture"), dev=("piture", "pitcure"), test=("pictre",)),
    "image": Wordings(train=("iamge", "imge", "imagee"), dev=("imaeg",), test=("imgae",)),
    "written": Wordings(train=("writen", "wirtten", "writtn"), dev=("writtten",), test=("wrtten",)),
    "number": Wordings(train=("nubmer", "numbr", "nummber"), dev=("numebr",), test=("numer",)),
    "object": Wordings(train=("objct", "obejct"), dev=("objetc",), test=("ojbect",)),
    "objects": Wordings(train=("objcts", "obejcts"), dev=("objetcs",), test=("ojbects",)),
    "places": Wordings(train=("plcaes", "palces"), dev=("plases",), test=("placse",)),
    "describe": Wordings(train=("descibe", "discribe", "decribe"), dev=("describ",), test=("desribe",)),
    "description": Wordings(train=("discription", "descrption"), dev=("descripton",), test=("desription",)),
    "statement": Wordings(train=("statment", "staetment"), dev=("sttement",), test=("statemnt",)),
    "true": Wordings(train=("ture", "treu"), dev=("trrue",), test=("tru",)),
    "false": Wordings(train=("flase", "fasle"), dev=("falsee",), test=("fals",)),
    "unanswerable": Wordings(train=("unanswerble", "unaswerable"), dev=("unanswreable",), test=("unanserable",)),
    "there": Wordings(train=("ther", "thre"), dev=("theer",), test=("tehre",)),
    "see": Wordings(train=("seee", "ese"), dev=("sie",), test=("sse",)),
    "text": Wordings(train=("txt", "tetx"), dev=("tekst",), test=("texxt",)),
    "tokens": Wordings(train=("tokns", "toekns"), dev=("tokenns",), test=("tokesn",)),
    "read": Wordings(train=("raed", "reed"), dev=("redd",), test=("rread",)),
    "word": Wordings(train=("wrod", "wrd"), dev=("wordd",), test=("owrd",)),
    "fit": Wordings(train=("fti", "fitt"), dev=("fiit",), test=("ift",)),
    "does": Wordings(train=("dose", "deos"), dev=("doess",), test=("dos",)),
    "the": Wordings(train=("teh", "hte"), dev=("tthe",), test=("th",)),
    "short": Wordings(train=("shrot", "shor"), dev=("sohrt",), test=("shhort",)),
    "question": Wordings(train=("quesiton", "qestion"), dev=("queston",), test=("questoin",)),
    "answer": Wordings(train=("anwser", "asnwer"), dev=("ansewr",), test=("answr",)),
    "options": Wordings(train=("opitons", "optons"), dev=("optionss",), test=("optoins",)),
    "choose": Wordings(train=("chose", "choos"), dev=("hcoose",), test=("choosse",)),
    "name": Wordings(train=("nmae", "naem"), dev=("nname",), test=("nam",)),
}

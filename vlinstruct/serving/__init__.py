"""`vlinstruct serve`: an OpenAI-compatible server over any backend, which optimizes instructions if it is told to.

merging.py     requests that wait together go through the model together
conversation.py    a request's JSON -> what is asked, and its picture; every field is checked by name
replies.py     what was written -> OpenAI's JSON, also in pieces
gate.py        who may come in: key, host, size, number
app.py         the routes
page.py        the page at `/`, from page.html, page.css and page.js
run.py         the process: address, signals, log
"""

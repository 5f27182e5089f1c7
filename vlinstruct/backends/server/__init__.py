"""Any OpenAI-compatible server as a backend: likelihoods come back where it tells them.

address.py      which servers, and what may be sent to them
connection.py   requests in flight, kept connections, retries; every failure has a type
contract.py     what a server can do, found out once
messages.py     rows -> messages; what the model would obey is refused by name
scoring.py      likelihoods of given texts through a chat route: vLLM's, and our own server's
token_route.py  vLLM's route for token ids: literal tokens, one picture read once
backend.py      the backend
"""

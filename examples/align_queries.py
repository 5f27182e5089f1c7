"""CMAA by hand (eq. 1): which words of the instruction each query of mini attends to."""

from pathlib import Path

import torch

import vlinstruct as vli

PICTURES = Path(__file__).parent / "pictures"
INSTRUCTION = "What colour is the star?"

model = vli.load("mini")
image_embeds = model.see(PICTURES / "star.png").image_embeds[None]  # one picture, (1, P, D)
vlm = model.backend
ids = vlm.qformer_tokenizer.encode(INSTRUCTION)
tokens = [vlm.qformer_tokenizer.tokenizer.id_to_token(token) for token in ids]

with torch.inference_mode():
    query_embeds, text_embeds = vlm.network.query(image_embeds, torch.tensor([ids]), torch.ones(1, len(ids)))
    attention = torch.softmax(query_embeds @ text_embeds.mT, dim=-1)[0]  # (Q, T)

for query, weights in enumerate(attention):
    best = int(weights.argmax())
    print(f"query {query:2} attends to {tokens[best]:10} with weight {weights[best]:.2f}")

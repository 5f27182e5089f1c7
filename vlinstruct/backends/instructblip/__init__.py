"""InstructBLIP: image -> encoder -> qformer -> cmaa -> projection -> language model -> answer.

Plain torch modules with transformers' parameter names. Read it in the order of the data:

    configuration    the architecture, from a transformers `config.json`; text_config: the facts of T5 and Llama
    image_processor  a picture -> pixel_values (B, 3, 224, 224)
    tokenization     a text -> ids, and ids -> text; conversation: earlier questions and answers -> a text
    attention        what all modules below share; the keys and values that are kept
    encoder          pixel_values -> image_embeds (B, 257, 1408)
    qformer          image_embeds, instruction -> query_embeds E_que (B, Q, D), text_embeds E_text (B, T, D)
    cmaa             E_que, E_text -> E_que, U_mm (B, 2Q, D): the paper's eq. 1; without EMA E_que goes on alone
    language_model   the interface; t5 and llama implement it: a new kind of language model is a new file beside them
    network          the modules above as one torch module, the projection (B, 2Q, D) -> (B, 2Q, L) among them
    scoring          the likelihood of given texts: eq. 3, and answers that are ranked
    decoding         greedy and sampling over the interface; beam_search; speculative: greedy in fewer passes
    prefixes         what a picture's seeing keeps: its embeddings, and the projected queries per text
    backend          texts and pictures in, texts and scores out: what the rest of the package talks to

and then, how such a backend comes about:

    load             a folder -> a backend; opening: a name, device and dtype -> the folder, its placement, an adapter
    memory           whether it fits, and where
    adapter, lora    what was trained of it: alignment layers, and low-rank matrices on the language model

The room never imports `instruction/`; `model.py` joins the two. A new backbone with this architecture is an entry in
`backends/registry.py`, a new sentence for the model is one in `instruction/templates.yaml`, and a new benchmark is a
file in `evaluation/benchmarks/`: none of them touches this room.
"""

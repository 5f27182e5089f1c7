"""How official benchmarks' answers are generated, and where that comes from: InstructBLIP's own evaluation in LAVIS.

LAVIS (github.com/salesforce/LAVIS): the evaluation files under lavis/projects/instructblip, and the defaults of
`predict_answers` in lavis/models/blip2_models/blip2_t5_instruct.py.

Where we differ: LAVIS' `generate` has a repetition penalty of 1.5, we have none unless `--repetition-penalty` says so.
"""

from __future__ import annotations

from vlinstruct.settings import GenerationSettings

SHORT_ANSWER = GenerationSettings(max_new_tokens=10, num_beams=5, length_penalty=-1.0)
SHORT_ANSWER_SOURCE = (
    "LAVIS, predict_answers and instructblip/qa_okvqa_*_eval.yaml: 5 beams, length penalty -1, 10 tokens"
)

CAPTION = GenerationSettings(max_new_tokens=30, num_beams=5, length_penalty=1.0)
CAPTION_SOURCE = (
    "LAVIS, instructblip/caption_nocaps_*_eval.yaml: 5 beams, length penalty 1; 30 tokens are ours (10 to 80 there)"
)

RANKED = GenerationSettings()
RANKED_SOURCE = "nothing is generated: the candidates are ranked by their likelihood"

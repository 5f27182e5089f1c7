"""The fully connected layer between the Q-Former and the language model: all that EMA trains (section 3.1).

One layer serves E_que and U_mm alike: the paper counts "768*2048+2048" parameters for FlanT5-XL, which is one layer.
"""

from __future__ import annotations

from torch import nn

from vlinstruct.backends.instructblip.configuration import InstructBlipConfig


def language_projection(config: InstructBlipConfig) -> nn.Linear:
    """Returns the layer (B, N, D) -> (B, N, L) from the Q-Former's width to the language model's."""
    return nn.Linear(config.qformer_config.hidden_size, config.text_config.hidden_size)

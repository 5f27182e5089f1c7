"""Only the projection learns (section 3.1), and that is made sure of by name and by count."""

from __future__ import annotations

from torch.nn import Parameter

from vlinstruct.model.instructblip import InstructBlip


def unfreeze_projection(model: InstructBlip) -> dict[str, Parameter]:
    """Freezes everything but the projection, which gets float32 weights.

    Returns:
        What learns, by transformers' name.
    """
    model.requires_grad_(False)
    model.language_projection.float().requires_grad_(True)
    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    inner, outer = model.config.qformer_config.hidden_size, model.config.text_config.hidden_size
    names, count = sorted(learning), sum(parameter.numel() for parameter in learning.values())
    assert names == ["language_projection.bias", "language_projection.weight"]
    assert count == inner * outer + outer
    return learning

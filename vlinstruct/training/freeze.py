"""What learns: the projection (section 3.1), and what was asked for beside it; made sure of by name and by count."""

from __future__ import annotations

from torch.nn import Parameter

from vlinstruct.backends.instructblip.adapter import layer_parameters
from vlinstruct.backends.instructblip.lora import LoraSettings, add_lora, lora_parameters
from vlinstruct.backends.instructblip.network import InstructBlip
from vlinstruct.training.recipe import FinetuneConfig


def unfreeze(model: InstructBlip, config: FinetuneConfig) -> dict[str, Parameter]:
    """Freezes everything but what the settings name, which gets float32 weights; sets the EMA flag.

    Returns:
        What learns, by transformers' name.
    """
    model.use_ema = config.ema
    model.requires_grad_(False)
    if config.learned_cmaa:
        model.learn_cmaa()
    if config.lora:
        add_lora(model.language_model, _lora_settings(config), seed=config.seed)
    wanted = layer_parameters(model, config.layers)
    for parameter in wanted.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    if config.lora:
        adapters = lora_parameters(model.language_model)
        wanted |= {f"language_model.{name}": parameter for name, parameter in adapters.items()}
    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    names = sorted(learning)
    expected = sorted(wanted)
    assert names == expected
    if config.layers == ("projection",) and not config.lora:
        _require_projection_alone(model, learning)
    return learning


def _require_projection_alone(model: InstructBlip, learning: dict[str, Parameter]) -> None:
    inner, outer = model.config.qformer_config.hidden_size, model.config.text_config.hidden_size
    names, count = sorted(learning), sum(parameter.numel() for parameter in learning.values())
    assert names == ["language_projection.bias", "language_projection.weight"]
    assert count == inner * outer + outer


def _lora_settings(config: FinetuneConfig) -> LoraSettings:
    return LoraSettings(r=config.lora_r, alpha=config.lora_alpha, dropout=config.lora_dropout)

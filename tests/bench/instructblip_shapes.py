"""Measures InstructBLIPs of 100 to 150 million random weights: what `vlinstruct bench` says of them.

    PYTHONPATH=tests python -m bench.instructblip_shapes t5 --threads 2 --runs 7 --acceptance 0.772
    PYTHONPATH=tests python -m bench.instructblip_shapes llama --threads 2 --runs 7 --acceptance 0.772

Large enough that products, not Python, take the time, and small enough for two cores. More options are those of
`vlinstruct bench`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

_VISION = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 10, "num_attention_heads": 8}
_VISION |= {"model_type": "instructblip_vision_model", "image_size": 224, "patch_size": 14}
_QFORMER = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6}
_QFORMER |= {"model_type": "instructblip_qformer", "encoder_hidden_size": 512, "cross_attention_frequency": 2}
_QFORMER |= {"vocab_size": 30523, "max_position_embeddings": 512}
_T5: dict[str, Any] = {"model_type": "t5", "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 1024}
_T5 |= {"num_layers": 8, "num_decoder_layers": 8, "num_heads": 8, "tie_word_embeddings": False}
_T5 |= {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "decoder_start_token_id": 0}
_T5 |= {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
_LLAMA: dict[str, Any] = {"model_type": "llama", "vocab_size": 32001, "hidden_size": 512, "intermediate_size": 1376}
_LLAMA |= {"num_hidden_layers": 12, "num_attention_heads": 8, "num_key_value_heads": 8, "rms_norm_eps": 1e-6}
_LLAMA |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TEXT = {"t5": _T5, "llama": _LLAMA}


def config_of(kind: str) -> dict[str, Any]:
    """Returns a `config.json` for `kind` t5 or llama."""
    return {
        "architectures": ["InstructBlipForConditionalGeneration"],
        "model_type": "instructblip",
        "vision_config": _VISION,
        "qformer_config": _QFORMER,
        "text_config": TEXT[kind],
        "num_query_tokens": 32,
        "image_token_index": TEXT[kind]["vocab_size"] - 1,
    }


def main() -> None:
    """Measures what the command line says."""
    from vlinstruct.cli.main import main as vlinstruct

    kind, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        backbone = Path(folder) / kind
        backbone.mkdir()
        (backbone / "config.json").write_text(json.dumps(config_of(kind)))
        sys.argv = ["vlinstruct", "bench", "--random-weights", "--backbone", str(backbone), *options]
        vlinstruct()


if __name__ == "__main__":
    main()

"""The model plug-in for lmms-eval, and the tasks that lmms-eval lacks. Nothing of ours imports it but the command line.

    python -m lmms_eval --model vlinstruct --model_args pretrained=mini,adapter=mini-ema,optimize=True --batch_size 8 \
        --include_path "$(vlinstruct lmms-tasks)" --tasks vlinstruct_vsr

lmms-eval finds it by the entry point `lmms_eval.models`. It is no dependency of ours: only `manifest.py`, `model.py`,
and `loss.py` import it. Written against lmms-eval 0.7.3.
"""

from pathlib import Path

TASKS_FOLDER = Path(__file__).parent / "tasks"
"""What lmms-eval's `--include_path` takes."""

"""The model plug-in for lmms-eval, and the tasks that lmms-eval lacks. Nothing of ours imports it but the command line.

    python -m lmms_eval --model vlinstruct --model_args pretrained=mini,adapter=mini-ema,optimize=True --batch_size 8 \
        --include_path "$(vlinstruct lmms-tasks)" --tasks vlinstruct_vsr

lmms-eval finds it by the entry point `lmms_eval.models`. It is no dependency of ours: only `manifest`, `model` and
`ranking` import it. Written against lmms-eval 0.7.3.

    manifest      the names of our models, which lmms-eval reads first
    model         the models: lmms-eval's requests in, texts and losses out
    settings      what `--model_args` and a task's `generation_kwargs` say
    requests      what a request asks of which document, and which requests go through the model together
    ranking       the losses of many documents' options
    tasks         the tasks, a folder each, with task_parts, which they share
    prepare       official files become the rows that our tasks read
"""

from pathlib import Path

TASKS_FOLDER = Path(__file__).parent / "tasks"
"""What lmms-eval's `--include_path` takes."""

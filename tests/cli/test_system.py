"""The command line against the system it runs on.

Most run in this process; a process of its own is started only where the process itself is what is tested.
"""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import assert_is_error_line, exit_code_of_main, vli

import vlinstruct

Pictures = Callable[..., list[Path]]
ASKED = "what is it?"
# Of a process that a signal ends, on a machine that is busy; what it is busy with would take 30 s or more.
AT_ONCE_S = 15


def start(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
    """Starts `python -m vlinstruct`; `python` in the options gives Python's own flags."""
    flags = options.pop("python", ())
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}  # type: ignore[dict-item]
    command = [sys.executable, *flags, "-m", "vlinstruct", *map(str, arguments)]  # type: ignore[misc]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, **{**streams, **options})  # type: ignore[call-overload]


def finish(process: subprocess.Popen[bytes], timeout_s: float = 60) -> tuple[int, bytes, str]:
    """Waits for a process and returns its exit code, stdout and stderr."""
    stdout, stderr = process.communicate(timeout=timeout_s)
    return process.returncode, stdout or b"", stderr.decode()


def only_error(stderr: str) -> str:
    (line,) = stderr.splitlines()
    assert_is_error_line(line)
    return line


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.005)


# Usage


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["aks"], "Did you mean 'ask'? Usage:"),
        (["ask"], 'vlinstruct ask IMAGE... "QUESTION"'),
        (["ask", "a.png"], 'vlinstruct ask IMAGE... "QUESTION"'),
        (["score", "a.png"], 'vlinstruct score IMAGE "INSTRUCTION"'),
        (["ask", "a.png", "what", "is", "written"], 'needs quotes: "what is written"'),
        (["optimize", "describe", "this", "a.png"], 'needs quotes: "describe this"'),
        (["optimize", "an instruction"], 'vlinstruct optimize "INSTRUCTION" IMAGE...'),
        (["ask", "a.png", ASKED, "--bakbone", "mini"], "--backbone"),
        (["ask", "a.png", ASKED, "--model", "mini"], "No such option: --model. Did you mean --backbone?"),
        (["train"], "No such command 'train'. Did you mean finetune?"),
        (["ask", "a.png", ASKED, "--batch-size", "many"], "'--batch-size'"),
        (["ask", "a.png", ASKED, "--batch-size", "0"], "'--batch-size'"),
        (["ask", "a.png", ASKED, "--num-beams", "0"], "num_beams must be 1 to 64, got 0"),
        (["ask", "a.png", ASKED, "--max-failures", "0"], "'--max-failures'"),
        (["ask", "a.png", ASKED, "--select", "best"], "'safe', 'cross', 'agree', 'ias', 'paper'"),
        (["ask", "a.png", ASKED, "--device"], "requires an argument"),
        (["ask", "a.png", "-what is it?"], "goes after '--'"),
        (["backbones", "mini", "all"], "unexpected extra argument"),
    ],
)
def test_a_mistyped_command_line_is_one_line_with_the_way_out(
    arguments: list[str], expected: str, no_model: None
) -> None:
    assert expected in vli(*arguments).refusal(2)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["ask", "a.png", ASKED, "--data", "items.jsonl"], "--data brings its own"),
        (["ask", "a.png", ASKED, "--allow-urls"], "are for --data"),
        (["ask", "a.png", ASKED, "--allow-outside"], "are for --data"),
        (["ask", "a.png", ASKED, "--overwrite"], "--overwrite needs --output"),
        (["ask", "a.png", ASKED, "--choices", "yes"], "two or more different answers"),
        (["ask", "a.png", ASKED, "--choices", "yes, yes"], "two or more different answers"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments: list[str], expected: str, no_model: None) -> None:
    assert expected in vli(*arguments).refusal(2)


def test_ten_thousand_pictures_are_checked_within_seconds_and_load_no_model(picture: Path, no_model: None) -> None:
    start_s = time.process_time()
    assert "a text is missing" in vli("ask", *[picture] * 10_000).refusal(2)
    missing = vli("ask", *[picture.with_name(f"{number}.png") for number in range(10_000)], ASKED)
    assert missing.exit_code == 4
    assert len(missing.records) == 10_000
    assert time.process_time() - start_s < 30  # quadratic time would be minutes


# Streams


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
@pytest.mark.parametrize(
    "arguments", [["--help"], ["backbones"], ["ask", "missing.png", "missing.jpg", ASKED]], ids=["help", "text", "json"]
)
def test_a_full_disk_behind_stdout_is_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        exit_code, _, stderr = finish(start(*arguments, stdout=full))
    assert exit_code == 6
    assert "space" in only_error(stderr)


def test_a_reader_that_has_seen_enough_ends_the_run_quietly() -> None:
    process = start("ask", *[f"{number}.png" for number in range(5_000)], ASKED)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["id"] == "0.png"
    process.stdout.close()
    process.stdout = None
    exit_code, _, stderr = finish(process)
    assert (exit_code, stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_talk_that_nothing_takes_changes_neither_output_nor_exit_code(tmp_path: Path) -> None:
    command = ["ask", tmp_path / "a.png", tmp_path / "b.png", ASKED]
    heard = finish(start(*command))
    with open("/dev/full", "wb") as full:
        # Buffered as by default: what is left in the buffer would make Python end with 120.
        process = start(*command, stderr=full, env={"PYTHONUNBUFFERED": ""})
        stdout, _ = process.communicate(timeout=60)
    assert heard[2].startswith("error: ")
    assert (process.returncode, stdout) == heard[:2]


def test_a_closed_stdout_is_one_line() -> None:
    command = [sys.executable, "-m", "vlinstruct", "--version"]
    closed = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], capture_output=True, text=True, check=False)
    assert closed.returncode == 6
    assert "stdout" in only_error(closed.stderr)


def test_a_pipe_gets_no_control_codes_and_no_progress(pictures: Pictures) -> None:
    result = vli("ask", *pictures(3), ASKED)
    assert result.exit_code == 0
    assert b"\x1b" not in result.stdout
    assert result.lines == []


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"NO_COLOR": "1", "TERM": "xterm"}])
def test_a_terminal_without_colours_gets_none(
    variables: dict[str, str], pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = vli("ask", *pictures(2), ASKED, is_terminal=True)
    assert b"\x1b[3" not in result.stdout  # a colour
    assert b"\x1b[1m" not in result.stdout
    quiet = vli("ask", *pictures(2), ASKED, "--quiet", is_terminal=True)
    assert b"\x1b" not in quiet.stdout
    assert quiet.stderr == ""


def test_a_stream_that_knows_ascii_only_gets_escapes(
    picture: Path, writes: Callable[[str], None], tmp_path: Path
) -> None:
    writes("un café 🙂")
    assert vli("ask", picture, ASKED, encoding="ascii").stdout == b"un caf\\xe9 \\U0001f642\n"
    (record,) = vli("ask", picture, "où? 🙂", "--json", encoding="ascii").records
    assert (record["question"], record["answer"]) == ("où? 🙂", "un café 🙂")
    line = vli("ask", tmp_path / "🙂.png", ASKED, encoding="ascii").refusal(4)
    assert "no such file" in line


def test_emoji_in_a_c_locale_are_answered_or_refused_in_one_line(picture: Path) -> None:
    c_locale = {"LC_ALL": "C", "PYTHONUTF8": "0"}
    exit_code, stdout, stderr = finish(start("ask", picture, "what is 🙂?", env=c_locale))
    assert (exit_code, stdout) == (4, b"")
    assert "not valid Unicode" in only_error(stderr)


def test_a_picture_with_any_name_is_read_and_keeps_its_bytes(picture: Path, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\xf0\x9f\x99\x82.png"
    shutil.copy(picture, path)
    (record,) = vli("ask", os.fsdecode(path), ASKED, "--json").records
    assert os.fsencode(record["image"]) == path


# Outputs


def test_an_output_that_is_an_input_is_refused(picture: Path, tmp_path: Path, no_model: None) -> None:
    before = picture.read_bytes()
    items = tmp_path / "items.jsonl"
    items.write_text(json.dumps({"image": "pictures/000.png", "question": ASKED}) + "\n")
    for arguments in (["ask", picture, ASKED], ["ask", picture.parent, ASKED], ["optimize", ASKED, picture]):
        for flags in ([], ["--overwrite"]):
            assert "one of the inputs" in vli(*arguments, "--output", picture, *flags).refusal(4)
    assert "one of the inputs" in vli("ask", "--data", items, "--output", items, "--overwrite").refusal(4)
    assert picture.read_bytes() == before
    assert items.read_text().endswith(f'"{ASKED}"}}\n')


def test_templates_are_an_input_too(picture: Path, tmp_path: Path, no_model: None) -> None:
    templates = tmp_path / "templates.yaml"
    templates.write_text(vli("optimize", "--show-templates").text)
    arguments = ["optimize", ASKED, picture, "--templates", templates, "--output", templates, "--overwrite"]
    assert "one of the inputs" in vli(*arguments).refusal(4)
    assert templates.read_text() == vli("optimize", "--show-templates").text


def test_an_output_that_is_no_place_for_a_file_is_refused(picture: Path, tmp_path: Path, no_model: None) -> None:
    assert "is a directory" in vli("ask", picture, ASKED, "--output", tmp_path).refusal(4)
    assert "does not exist" in vli("ask", picture, ASKED, "--output", tmp_path / "no" / "out.jsonl").refusal(4)
    assert "does not exist" in vli("ask", picture, ASKED, "--output", picture / "out.jsonl").refusal(4)


def test_an_output_that_holds_something_else_is_refused_untouched(
    picture: Path, tmp_path: Path, no_model: None
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("milk\nbread")
    line = vli("ask", picture, ASKED, "--output", notes).refusal(4)
    assert "none of our records" in line
    assert "--overwrite" in line
    assert notes.read_text() == "milk\nbread"


def test_an_output_that_cannot_be_written_is_an_early_error(
    picture: Path, tmp_path: Path, no_model: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "path is too long" in vli("ask", picture, ASKED, "--output", tmp_path / ("x" * 5_000)).refusal(6)

    opened = os.open

    def deny(path: str, *how: int) -> int:  # root may write everywhere: the system's answer is played
        if os.fspath(path).endswith("out.jsonl"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *how)

    monkeypatch.setattr("vlinstruct.records.output.os.open", deny)
    assert "permission denied" in vli("ask", picture, ASKED, "--output", tmp_path / "out.jsonl").refusal(6)


# The machine


@pytest.mark.parametrize("device", ["cuda:99", "meta", "toaster", "", "cpu:x"])
def test_a_device_that_is_not_here_is_named(device: str, pictures: Pictures) -> None:
    line = vli("ask", *pictures(2), ASKED, "--device", device).refusal(4)
    assert f"cannot use --device ({device})" in line
    assert "--device cpu" in line


def test_cuda_where_there_is_none_is_named(picture: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert "--device cpu" in vli("ask", picture, ASKED, "--device", "cuda").refusal(4)


def test_the_cpu_may_be_named_with_a_number(picture: Path) -> None:
    plain = vli("ask", picture, ASKED, "--device", "cpu").text
    assert vli("ask", picture, ASKED, "--device", "cpu:0").text == plain


def test_float16_is_refused_for_t5_and_taken_for_llama(picture: Path, tiny_folders: dict[str, Path]) -> None:
    assert "overflow in float16" in vli("ask", picture, ASKED, "--dtype", "float16").refusal(4)
    assert vli("ask", picture, ASKED, "--dtype", "float16", "--backbone", tiny_folders["llama"]).text
    assert "'bfloat16'" in vli("ask", picture, ASKED, "--dtype", "fp16").refusal(2)


def test_a_model_larger_than_the_free_memory_is_refused_before_it_is_loaded(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlinstruct.weights.placement.available_bytes", lambda: 100_000)
    monkeypatch.setattr(
        "vlinstruct.backends.instructblip.opening.load_model", lambda *_, **__: pytest.fail("the model was loaded")
    )
    line = vli("ask", *pictures(2), ASKED).refusal(6)
    assert "of memory are free" in line


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried 0x7f"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("could not create a primitive"),
    ],
)
def test_memory_that_runs_out_is_one_line(error: Exception, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("vlinstruct.model.load", fail)
    assert "out of memory" in vli("ask", picture, ASKED).refusal(6)


def test_what_is_no_lack_of_memory_is_not_taken_for_one(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("could not create a primitive descriptor for a matmul primitive")

    monkeypatch.setattr("vlinstruct.model.load", fail)
    assert "a bug in vlinstruct" in vli("ask", picture, ASKED).refusal(1)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files", "a.json"),
        RuntimeError("unable to open file </a/model.safetensors> in read-only mode: Too many open files (24)"),
    ],
)
def test_too_many_open_files_are_told_as_that(error: Exception, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("vlinstruct.model.load", fail)
    assert "ulimit -n" in vli("ask", picture, ASKED).refusal(6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no process limits")
def test_few_open_files_are_enough_for_a_batch(pictures: Pictures) -> None:
    resource = pytest.importorskip("resource")
    expected = vli("ask", *pictures(12), ASKED, "--batch-size", 4)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = max(map(int, os.listdir("/proc/self/fd"))) if os.path.isdir("/proc/self/fd") else 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 8, limits[1]))
    try:
        result = vli("ask", *pictures(12), ASKED, "--batch-size", 4)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (result.exit_code, result.stdout) == (0, expected.stdout)


def test_no_code_reads_a_clock_that_can_jump() -> None:
    jumping = re.compile(r"\btime\.(time|time_ns|ctime|localtime|gmtime|strftime)\(|\bdatetime\b|\bst_ctime\b|getmtime")
    for path in Path(vlinstruct.__file__).parent.rglob("*.py"):
        if path.name != "replies.py":  # OpenAI's answers tell the time of day
            assert not jumping.search(path.read_text(encoding="utf-8")), path


def test_ctrl_c_while_torch_is_loaded_ends_the_run_at_once(picture: Path) -> None:
    process = start("ask", picture, ASKED)
    maps = Path(f"/proc/{process.pid}/maps")
    if not maps.exists():
        process.kill()
        pytest.skip("the system has no /proc to see torch being loaded")
    wait_until(lambda: "libtorch_cpu" in maps.read_text(), process)
    process.send_signal(signal.SIGINT)
    asked_s = time.monotonic()
    exit_code, stdout, stderr = finish(process)
    assert time.monotonic() - asked_s < AT_ONCE_S
    assert (exit_code, stdout, stderr) == (130, b"", "")


@pytest.mark.slow
def test_sigterm_during_a_batch_keeps_what_is_done_and_the_run_goes_on_from_there(
    pictures: Pictures, tmp_path: Path
) -> None:
    folder, output, whole = pictures(16)[0].parent, tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    command = ["ask", folder, ASKED, "--num-beams", 4]
    process = start(*command, "--output", output)
    wait_until(lambda: output.exists() and output.stat().st_size > 0, process)
    process.terminate()
    asked_s = time.monotonic()
    exit_code, stdout, stderr = finish(process)
    assert time.monotonic() - asked_s < AT_ONCE_S
    farewell = f"stopped: what is finished is in {output}; the same command goes on from there.\n"
    assert (exit_code, stdout, stderr) == (143, b"", farewell)
    assert output.read_bytes().endswith(b"\n")
    num_lines = len(output.read_bytes().splitlines())
    assert 1 <= num_lines < 16
    assert f"{num_lines} were already there" in vli(*command, "--output", output).stderr
    assert vli(*command, "--output", whole).exit_code == 0
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_swallowed_by_nothing_on_the_way(
    number: signal.Signals, exit_code: int, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(number)
        except Exception:
            pytest.fail("a library would have gone on")

    monkeypatch.setattr("vlinstruct.model.load", load)
    monkeypatch.setattr(sys, "argv", ["vlinstruct", "ask", str(picture), ASKED])
    assert exit_code_of_main() == exit_code


SWALLOWED = """
import sys, time, types
from vlinstruct.cli import main
def load(*arguments, **settings):
    try:
        print("loading", file=sys.stderr, flush=True)
        time.sleep(60)
    except BaseException:
        time.sleep(60)
sys.modules["vlinstruct.model"] = types.ModuleType("vlinstruct.model")
sys.modules["vlinstruct.model"].load = load
main.main()
"""


def test_a_signal_that_a_library_swallowed_ends_the_run_all_the_same(picture: Path) -> None:
    command = [sys.executable, "-c", SWALLOWED, "ask", str(picture), ASKED]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline() == b"loading\n"
    process.send_signal(signal.SIGINT)
    asked_s = time.monotonic()
    assert finish(process) == (130, b"", "")
    assert time.monotonic() - asked_s < AT_ONCE_S


@pytest.mark.parametrize("seed", [-1, 2**64, "one"])
def test_a_seed_out_of_range_is_refused(seed: object, picture: Path, no_model: None) -> None:
    assert "seed" in vli("ask", picture, ASKED, "--seed", seed).refusal(2)


def test_every_seed_in_range_is_taken_and_gives_the_same_bytes_again(picture: Path) -> None:
    drawn = {vli("ask", picture, ASKED, "--do-sample", "--seed", seed).text for seed in (0, 1, 2**64 - 1)}
    repeated = {vli("ask", picture, ASKED, "--do-sample", "--seed", seed).text for seed in (0, 1, 2**64 - 1)}
    assert drawn == repeated
    assert len(drawn) == 3


def test_python_without_asserts_does_the_same_in_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    command = ["ask", "missing.png", "missing.jpg", ASKED]
    exit_code, stdout, stderr = finish(start(*command, python=["-O"], cwd=tmp_path / "locked"))
    plain = vli(*command)
    assert (exit_code, stdout, stderr) == (plain.exit_code, plain.stdout, plain.stderr)


def test_no_assert_does_any_work() -> None:
    # A whole run under -O would compile all of torch first, where Python may not write its bytecode.
    for path in Path(vlinstruct.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert):
                called = {ast.unparse(call.func) for call in ast.walk(node.test) if isinstance(call, ast.Call)}
                assert called <= {"isinstance", "len", "all", "any"}, f"{path}:{node.lineno}"


def test_a_deleted_working_folder_is_one_line(tmp_path: Path, no_model: None, picture: Path) -> None:
    gone, before = tmp_path / "gone", Path.cwd()
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        result = vli("ask", picture, ASKED)
    finally:
        os.chdir(before)
    assert "was deleted" in result.refusal(6)


# Start-up

LIGHT = """
import contextlib, io, json, sys
from vlinstruct.cli.main import run_command

def run(*lines):
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        codes = [run_command(line.split()) for line in lines]
    print(json.dumps([codes, list(sys.modules)]))

commands = ["--version", "--help", "ask --help", "optimize --help", "score --help", "backbones --help"]
run(*commands, "backbones", "backbones --json", "optimize --show-templates")
run("ask missing.png what?", "ask missing.png missing.jpg what?")
"""


def test_what_needs_no_model_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    (codes, modules), (refused, modules_to_refuse) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (codes, refused) == ([0] * 9, [4, 4])
    assert {"torch", "transformers", "numpy", "tokenizers", "safetensors", "PIL", "rich"}.isdisjoint(modules)
    assert {"torch", "transformers", "numpy", "tokenizers", "rich"}.isdisjoint(modules_to_refuse)


def test_python_m_vlinstruct_is_the_command() -> None:
    exit_code, stdout, stderr = finish(start("--version"))
    assert (exit_code, stdout, stderr) == (0, f"vlinstruct {vlinstruct.__version__}\n".encode(), "")


def test_debug_adds_the_traceback_and_nothing_else_does(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LookupError("<object at 0x7f00>")

    monkeypatch.setattr("vlinstruct.model.load", fail)
    line = vli("ask", picture, ASKED).refusal(1)
    assert "LookupError at test_system.py" in line
    debugged = vli("ask", picture, ASKED, "--debug")
    assert debugged.exit_code == 1
    assert "Traceback" in debugged.stderr
    assert debugged.lines[-1] == line


def test_a_line_is_never_longer_than_300_characters(tmp_path: Path) -> None:
    for name in ("x" * 200 + ".png", "/".join(["deep"] * 200), "\x1b[2J\n\u202e.png"):
        vli("ask", tmp_path / name, ASKED).refusal(4)


def test_a_stopped_batch_says_how_to_go_on(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.jsonl"
    monkeypatch.setattr("vlinstruct.model.load", lambda *args, **kwargs: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr("sys.argv", ["vlinstruct", "ask", *map(str, pictures(2)), ASKED, "-o", str(output)])
    assert exit_code_of_main() == 130
    said = f"stopped: what is finished is in {output}; the same command goes on from there.\n"
    assert capsys.readouterr().err == said

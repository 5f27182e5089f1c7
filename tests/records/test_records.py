"""Records come out whole, once, and an interrupted run goes on."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from vlinstruct.errors import ImageError, InputError, OutputInUseError, ResourceError
from vlinstruct.records import output as records
from vlinstruct.records.output import RecordWriter, error_record, json_line, open_records

SCHEMA = "vlinstruct.ask/1"
KEYS = {f"{n}.png": f"key-{n}" for n in range(5)}


def _ok(n):
    return {"status": "ok", "answer": f"answer {n}", "id": f"{n}.png", "schema": SCHEMA}


def _failed(n):
    return error_record(SCHEMA, f"{n}.png", ImageError("cannot read image (x): no. Go", code="image_damaged"))


def _run(path, made=range(5), failing=(), keys=KEYS, **options):
    """What a command does: every item that is not done is made once."""
    with open_records(path, schema=SCHEMA, keys=keys, **options) as writer:
        for n in made:
            if not writer.is_done(f"{n}.png"):
                writer.write(_failed(n) if n in failing else _ok(n))
        return writer


def _records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.jsonl"


def test_a_record_is_one_line_of_utf8_and_round_trips():
    record = {
        "answer": 'é猫👩‍👩‍👧 "\\',
        "id": "a\nb\x1b[2J\u202e\u2028\x85",
        "status": "ok",
        "schema": SCHEMA,
        "n": [1, None],
    }
    line = json_line(record)
    assert json.loads(line) == record
    assert line.startswith(b'{"schema": "vlinstruct.ask/1", "id": ')
    assert line.endswith(b"}\n")
    assert len(line.decode().splitlines()) == 1
    assert "é猫" in line.decode()
    assert not set(line.decode()) & set("\x1b\x85\u202e\u2028")


def test_a_file_name_that_is_no_utf8_round_trips_to_the_same_bytes():
    for name in (b"\xff\xfe\\\x80.png", "é\U0001f600.png".encode(), bytes(range(1, 256)).replace(b"/", b"")):
        line = json_line({"id": os.fsdecode(name)})
        assert os.fsencode(json.loads(line)["id"]) == name


def test_nan_is_never_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_line({"ias": float("nan")})


def test_an_error_record_has_code_and_message():
    assert _failed(1) == {
        "schema": SCHEMA,
        "id": "1.png",
        "status": "error",
        "code": "image_damaged",
        "message": "cannot read image (x): no. Go",
    }


def test_a_stream_gets_every_line_at_once():
    class Stream(io.BytesIO):
        calls: tuple = ()

        def write(self, content):
            self.calls += (bytes(content),)
            return len(content)

        def flush(self):
            self.calls += ("flush",)

    stream = Stream()
    with RecordWriter(stream) as writer:
        writer.write(_ok(1))
    assert stream.calls == (json_line(_ok(1)), "flush")
    assert not stream.closed


def test_dev_full_is_told_and_a_closed_pipe_is_left_to_the_caller(refused):
    with open("/dev/full", "wb", buffering=0) as full:
        refused(ResourceError, "disk_full", RecordWriter(full).write, _ok(1))
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb", buffering=0) as pipe, pytest.raises(BrokenPipeError):
        RecordWriter(pipe).write(_ok(1))


def test_devices_can_be_named_as_output(refused):
    with open_records("/dev/full", schema=SCHEMA, keys=KEYS) as writer:
        refused(ResourceError, "disk_full", writer.write, _ok(1))
    assert _run("/dev/null").done == frozenset()


def test_a_new_file_gets_records_with_keys(output):
    _run(output)
    assert [record["id"] for record in _records(output)] == list(KEYS)
    assert [record["key"] for record in _records(output)] == list(KEYS.values())


def test_resumed_equals_uninterrupted(output, tmp_path):
    _run(tmp_path / "whole.jsonl")
    _run(output, made=range(3))
    writer = _run(output)
    assert writer.done == {"0.png", "1.png", "2.png"}
    assert writer.notices == (f"{output}: 3 done before",)
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    before = output.stat()
    assert _run(output).done == set(KEYS)
    assert (output.stat().st_mtime_ns, output.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_failed_items_are_tried_again_and_stand_last_then(output):
    output.touch(0o640)
    output.chmod(0o640)
    writer = _run(output, failing=(1, 3))
    writer = _run(output)
    assert writer.notices == (f"{output}: 3 done before, 2 failed before and tried again",)
    first, second, third, fourth, fifth = KEYS
    assert [record["id"] for record in _records(output)] == [first, third, fifth, second, fourth]
    assert all(record["status"] == "ok" for record in _records(output))
    assert output.stat().st_mode & 0o777 == 0o640
    assert os.listdir(output.parent) == ["out.jsonl"]


def test_what_is_there_several_times_is_counted_once(output):
    _run(output, failing=(1, 3))
    content = output.read_bytes()
    output.write_bytes(content + content)  # every good record and both failed ones twice
    with output.open("ab") as stream:
        stream.write(json_line(_ok(3) | {"key": KEYS["3.png"]}))  # and one of these was done after all
    writer = _run(output)
    assert writer.notices == (f"{output}: 4 done before, 1 failed before and tried again",)
    assert sorted(record["id"] for record in _records(output)) == list(KEYS)


def test_half_a_last_line_is_dropped_at_every_length(output):
    _run(output, made=range(2))
    content = output.read_bytes()
    first = content.index(b"\n") + 1
    for length in range(first, len(content)):
        output.write_bytes(content[:length])
        writer = _run(output, made=range(2))
        assert output.read_bytes() == content, length
        assert writer.done == {"0.png"}


def test_half_of_the_very_first_line_is_dropped(output):
    _run(output, made=range(1))
    content = output.read_bytes()
    for length in range(len(content)):
        output.write_bytes(content[:length])
        _run(output, made=range(1))
        assert output.read_bytes() == content, length


def test_half_a_line_behind_failed_records(output):
    _run(output, made=range(3), failing=(0, 2))
    output.write_bytes(output.read_bytes() + json_line(_ok(3))[:-9])
    _run(output)
    assert sorted(record["id"] for record in _records(output)) == list(KEYS)


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"hello\n",
        b"\n",
        b'{"a": 1}\n',
        b"[1]\n",
        b'{"schema": "vlinstruct.score/1", "id": "1", "status": "ok", "key": "k"}\n',
        b'{"schema": "vlinstruct.ask/1", "id": "1", "status": "ok"}\n',
        b"\x89PNG\r\n\x1a\n",
        b"[" * 100_000 + b"\n",
        b'{"scheme": "half',
        json_line({**_ok(1), "key": "key-1"}) + b"notes of mine",
    ],
)
def test_a_file_of_anything_else_is_never_touched(content, output, refused):
    output.write_bytes(content)
    before = output.stat().st_mtime_ns
    error = refused(InputError, "output_not_records", open_records, output, schema=SCHEMA, keys=KEYS)
    assert "--overwrite" in error.message
    assert output.read_bytes() == content
    assert output.stat().st_mtime_ns == before
    _run(output, overwrite=True)  # the refusal has left no lock
    assert sorted(record["id"] for record in _records(output)) == list(KEYS)


def test_overwrite_replaces_atomically(output, monkeypatch):
    output.write_bytes(b"old")
    output.chmod(0o600)
    real = os.replace

    def replace(source, target):
        assert output.read_bytes() == b"old"
        assert os.path.getsize(source) == 0
        real(source, target)

    monkeypatch.setattr(records.os, "replace", replace)
    writer = _run(output, made=range(1), overwrite=True)
    assert writer.done == frozenset()
    assert len(_records(output)) == 1
    assert output.stat().st_mode & 0o777 == 0o600


def test_a_rewrite_that_fails_leaves_the_old_file(output, refused, monkeypatch):
    _run(output, failing=(1,))
    before = output.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records, "_write_all", full)
    refused(ResourceError, "disk_full", open_records, output, schema=SCHEMA, keys=KEYS)
    assert output.read_bytes() == before
    assert os.listdir(output.parent) == ["out.jsonl"]


def test_a_link_stays_a_link(output, tmp_path):
    link = tmp_path / "link.jsonl"
    link.symlink_to(output)
    _run(link, failing=(1,))
    _run(link)
    assert link.is_symlink()
    assert len(_records(output)) == len(KEYS)


def test_good_records_made_in_another_way_are_never_mixed(output, refused):
    _run(output)
    before = output.read_bytes()
    other = {name: key + "-other-question" for name, key in KEYS.items()}
    error = refused(InputError, "output_other_run", open_records, output, schema=SCHEMA, keys=other)
    assert "0.png made with other arguments" in error.message
    assert output.read_bytes() == before


def test_records_of_other_items_are_kept(output):
    _run(output, failing=(4,))
    _run(output, made=(), keys={"more/1.png": "key-more"})
    assert [(record["id"], record["status"]) for record in _records(output)][-1] == ("4.png", "error")
    assert len(_records(output)) == len(KEYS)


def test_the_same_record_twice_becomes_one(output):
    _run(output)
    content = output.read_bytes()
    output.write_bytes(content + content)
    assert _run(output).done == set(KEYS)
    assert output.read_bytes() == content


def test_items_that_are_computed_from_the_same_have_a_record_each(output):
    keys = dict.fromkeys(KEYS, "one key")  # an evaluation's item whose wordings are equal, or two names of one model
    _run(output, made=range(3), keys=keys)
    writer = _run(output, keys=keys)
    assert writer.notices == (f"{output}: 3 done before",)
    assert [record["id"] for record in _records(output)] == list(KEYS)


def test_outputs_that_can_be_none(tmp_path, image_file, refused):
    path = image_file()
    content = path.read_bytes()
    (tmp_path / "link.png").symlink_to(path)
    arguments = {"schema": SCHEMA, "keys": KEYS}
    refused(InputError, "output_is_directory", open_records, tmp_path, **arguments)
    refused(InputError, "output_no_parent", open_records, tmp_path / "no/out.jsonl", **arguments)
    refused(InputError, "output_no_parent", open_records, path / "out.jsonl", **arguments)
    for name in (path, tmp_path / "link.png"):
        inputs = [tmp_path / "missing.png", path]
        refused(InputError, "output_is_input", open_records, name, inputs=inputs, overwrite=True, **arguments)
    assert path.read_bytes() == content
    os.mkfifo(tmp_path / "fifo")
    refused(InputError, "output_not_regular", open_records, tmp_path / "fifo", **arguments)
    refused(InputError, "output_bad_path", open_records, "a\0b", **arguments)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EACCES, "output_permission"),
        (errno.EROFS, "output_read_only"),
        (errno.EDQUOT, "disk_full"),
        (errno.EFBIG, "file_too_large"),
        (errno.EIO, "output_failed"),
    ],
)
def test_what_the_system_refuses_is_said_at_once(number, code, output, refused, monkeypatch):
    def refuse(*_):
        raise OSError(number, "refused")

    monkeypatch.setattr(records.os, "open", refuse)
    refused(ResourceError, code, open_records, output, schema=SCHEMA, keys=KEYS)


def test_a_path_of_5000_characters(tmp_path, refused):
    for name in ("x" * 5000, "x/" * 2500 + "x"):
        refused(ResourceError, "output_bad_path", open_records, tmp_path / name, schema=SCHEMA, keys=KEYS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere; the errors are played above")
def test_no_permission_in_the_folder(tmp_path, refused):
    tmp_path.chmod(0o500)
    refused(ResourceError, "output_permission", open_records, tmp_path / "o.jsonl", schema=SCHEMA, keys=KEYS)


@pytest.mark.parametrize("after_bytes", [0, 10])
def test_a_line_that_does_not_fit_is_taken_back(after_bytes, output, refused, monkeypatch):
    real = os.write
    with open_records(output, schema=SCHEMA, keys=KEYS) as writer:
        writer.write(_ok(0))
        whole = output.read_bytes()
        room = [after_bytes]

        def full(descriptor, content):
            if not room.pop(0) if room else True:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(descriptor, bytes(content)[:after_bytes])

        monkeypatch.setattr(records.os, "write", full)
        refused(ResourceError, "disk_full", writer.write, _ok(1))
        assert output.read_bytes() == whole
        monkeypatch.undo()
        writer.write(_ok(1))
    assert [record["id"] for record in _records(output)] == ["0.png", "1.png"]


def test_a_short_write_is_completed(output, monkeypatch):
    real = os.write
    monkeypatch.setattr(records.os, "write", lambda descriptor, content: real(descriptor, bytes(content)[:7]))
    _run(output)
    assert len(_records(output)) == len(KEYS)


def test_every_line_is_synced(output, monkeypatch):
    synced = []
    monkeypatch.setattr(records.os, "fsync", lambda descriptor: synced.append(output.read_bytes().count(b"\n")))
    _run(output)
    assert synced == [1, 2, 3, 4, 5]


def test_an_output_deleted_during_the_run_is_noticed(output, refused):
    with open_records(output, schema=SCHEMA, keys=KEYS) as writer:
        writer.write(_ok(0))
        output.unlink()
        refused(ResourceError, "output_deleted", writer.write, _ok(1))


def test_a_second_run_is_refused_and_names_the_first(output, refused):
    with open_records(output, schema=SCHEMA, keys=KEYS) as writer:
        writer.write(_ok(0))
        for overwrite in (False, True):
            arguments = {"schema": SCHEMA, "keys": KEYS, "overwrite": overwrite}
            error = refused(OutputInUseError, "output_in_use", open_records, output, **arguments)
            assert f"process {os.getpid()} writes to it" in error.message or "another process" in error.message
            assert error.exit_code == 8
        writer.write(_ok(1))
    assert len(_records(output)) == 2
    _run(output)


def test_the_lock_holds_after_a_rewrite(output, refused):
    _run(output, failing=(1,))
    with open_records(output, schema=SCHEMA, keys=KEYS):
        refused(OutputInUseError, "output_in_use", open_records, output, schema=SCHEMA, keys=KEYS)


def test_a_file_replaced_before_it_was_locked_is_opened_again(output, monkeypatch):
    _run(output, made=range(2))
    real, content, locked = records.lock, output.read_bytes(), []

    def replaced_first(stream, name):
        if not locked:
            output.unlink()
            output.write_bytes(content)
        locked.append(name)
        return real(stream, name)

    monkeypatch.setattr(records, "lock", replaced_first)
    _run(output)
    assert len(locked) == 2
    assert len(_records(output)) == len(KEYS)


def test_a_file_system_without_locks_is_said(output, monkeypatch):
    import fcntl

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert "let only one run write it" in _run(output).notices[0]


def test_threads_never_mix_their_lines(output):
    keys = {f"{n}.png": f"key-{n}" for n in range(200)}
    with open_records(output, schema=SCHEMA, keys=keys) as writer:
        threads = [
            threading.Thread(target=lambda start=start: [writer.write(_ok(n)) for n in range(start, 200, 8)])
            for start in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {record["id"] for record in _records(output)} == set(keys)


WORKER = """
import sys
from vlinstruct.records.output import open_records
keys = {f"{n}.png": f"key-{n}" for n in range(400)}
with open_records(sys.argv[1], schema="vlinstruct.ask/1", keys=keys) as writer:
    for n in range(400):
        if not writer.is_done(f"{n}.png"):
            answer = f"answer {n} " * 500
            writer.write({"schema": "vlinstruct.ask/1", "id": f"{n}.png", "status": "ok", "answer": answer})
"""


def test_a_killed_run_goes_on_and_readers_see_whole_lines_only(output):
    for delay in (0.0, 0.01, 0.03):
        worker = subprocess.Popen([sys.executable, "-c", WORKER, str(output)], stderr=subprocess.DEVNULL)
        while worker.poll() is None and not (output.exists() and output.stat().st_size):
            time.sleep(0.002)
        time.sleep(delay)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        assert all(json.loads(line) for line in output.read_bytes().split(b"\n")[:-1])
    subprocess.run([sys.executable, "-c", WORKER, str(output)], check=True, stderr=subprocess.PIPE)
    written = _records(output)
    assert [record["id"] for record in written] == [f"{n}.png" for n in range(400)]
    assert all(record["answer"] == f"answer {n} " * 500 for n, record in enumerate(written))


def test_a_run_that_is_refused_before_its_first_record_leaves_no_file(output):
    with pytest.raises(InputError), open_records(output, schema=SCHEMA, keys=KEYS):
        raise InputError("no such device")
    assert not output.exists()
    with open_records(output, schema=SCHEMA, keys=KEYS):
        pass  # nothing was to be done
    assert output.read_bytes() == b""


def test_a_run_that_is_refused_before_its_first_record_keeps_what_it_was_to_overwrite(output):
    _run(output)
    before = output.read_bytes()
    with pytest.raises(InputError), open_records(output, schema=SCHEMA, keys=KEYS, overwrite=True):
        raise InputError("no such device")
    assert output.read_bytes() == before
    with open_records(output, schema=SCHEMA, keys=KEYS, overwrite=True):
        pass
    assert output.read_bytes() == b""

"""The hub is away, slow, wrong or hostile; a hub of our own on this machine's loopback plays it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from command_line import vli
from huggingface_hub import constants
from PIL import Image

from vlinstruct.backends.registry import find_folder
from vlinstruct.errors import CheckpointError, NetworkError, ResourceError, VlinstructError
from vlinstruct.weights import hub as hub_module
from vlinstruct.weights.fingerprint import fingerprint
from vlinstruct.weights.hub import cached_folder, names_code

HUB_ID = "owner/instructblip"
TOKEN = "hf_thisIsASecretOfTheTests"


@dataclass
class Hub:
    """What the server tells, and what it was asked.

    Args:
        files: of the one repository, by path.
        commit: its newest.
        status: answers to requests whose path holds the key, in place of the file.
        headers: sent with those.
        cut: sends so many bytes of a file, then hangs up.
        requests: what was asked, `GET /path`.
    """

    files: dict[str, bytes]
    commit: str = "a" * 40
    status: dict[str, int] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    requests: list[str] = field(default_factory=list)

    def content(self, path: str) -> bytes:
        """Returns a file, or what the hub's interface tells of the repository."""
        if f"/models/{HUB_ID}/tree/" in path:
            return json.dumps([self._entry(name) for name in self.files]).encode()
        if f"/models/{HUB_ID}" in path:
            siblings = [{"rfilename": name} for name in self.files]
            return json.dumps({"_id": "1", "id": HUB_ID, "sha": self.commit, "siblings": siblings}).encode()
        return self.files[path.partition(f"/resolve/{self.commit}/")[2]]

    def _entry(self, name: str) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": self.etag(name)}

    def etag(self, name: str) -> str:
        return f"{name.replace('/', '-')}-{self.commit[:8]}"


class Handler(BaseHTTPRequestHandler):
    """Serves a Hub as huggingface.co does."""

    hub: Hub

    def do_GET(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        status = next((code for part, code in self.hub.status.items() if part in self.path), None)
        try:
            content = b"secret words of the server" if status else self.hub.content(self.path)
        except KeyError:
            content, status = b"", 404
        self.send_response(status or 200)
        for name, value in self._headers(content, status).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content if "/resolve/" not in self.path else content[: self.hub.cut])

    do_HEAD = do_GET

    def _headers(self, content: bytes, status: int | None) -> dict[str, str]:
        fixed = {"Content-Length": str(len(content)), "X-Repo-Commit": self.hub.commit}
        if status is not None:
            return {**fixed, **self.hub.headers}
        return {**fixed, "ETag": f'"{self.hub.etag(self.path.partition(f"/resolve/{self.hub.commit}/")[2])}"'}

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, in place of this machine's."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return tmp_path / "hub"


@pytest.fixture
def files(tiny_folders: dict[str, Path]) -> dict[str, bytes]:
    folder = tiny_folders["t5"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (9, 12), "red").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def set_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_ENDPOINT", endpoint)


@pytest.fixture
def hub(files: dict[str, bytes], cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the tiny T5 folder."""
    served = Hub(files=dict(files))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (Handler,), {"hub": served}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    set_endpoint(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def unreachable(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at the hub's address."""
    set_endpoint(monkeypatch, "http://127.0.0.1:9")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Collects how long the hub's library waits between tries, in place of waiting."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def refused(error: type[VlinstructError], *, offline: bool = False) -> str:
    """Returns the message with which the model is refused, within the contract of every message."""
    with pytest.raises(error) as caught:
        find_folder(HUB_ID, offline=offline)
    message = caught.value.message
    assert len(message) <= 290
    assert message.isprintable()
    assert TOKEN not in message
    assert "secret" not in message
    return message


def blobs(cache: Path) -> list[Path]:
    return sorted((cache / "models--owner--instructblip" / "blobs").iterdir())


def downloaded_weights() -> Path:
    """Downloads the model and returns its weights' blob in the cache."""
    return (find_folder(HUB_ID) / "model.safetensors").resolve()


def test_a_model_that_is_not_cached_needs_the_network(unreachable: None, capfd: pytest.CaptureFixture[str]) -> None:
    start = time.perf_counter()
    assert "not in the cache and offline" in refused(NetworkError, offline=True)
    assert "not in the cache and the hub cannot be reached" in refused(NetworkError)
    assert time.perf_counter() - start < 30
    assert capfd.readouterr().err == ""  # the library's own lines are kept back


def test_it_is_one_line_with_exit_code_9(unreachable: None, picture: Path) -> None:
    line = vli("ask", picture, "what?", "--backbone", HUB_ID).refusal(9)
    assert "the hub cannot be reached" in line


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_cached_model_loads_offline_without_a_connection(hub: Hub, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    folder = find_folder(HUB_ID)
    hub.requests.clear()
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("a socket was opened"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", way == "environment")
    assert find_folder(HUB_ID, offline=way == "option") == folder
    assert hub.requests == []


def test_a_cached_model_is_not_downloaded_again(hub: Hub) -> None:
    folder = find_folder(HUB_ID)
    hub.requests.clear()
    assert find_folder(HUB_ID) == folder
    assert [request for request in hub.requests if "/resolve/" in request] == []


def test_a_cached_model_waits_for_no_hub_that_cannot_be_reached(
    hub: Hub, cache: Path, patient: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = find_folder(HUB_ID)
    for listing in cache.rglob("trees"):  # which releases before huggingface_hub 2 did not keep
        shutil.rmtree(listing)
    set_endpoint(monkeypatch, "http://127.0.0.1:9")
    assert find_folder(HUB_ID) == folder
    assert patient == []  # it was not tried again


def test_a_repository_that_moves_on_while_it_is_downloaded_is_checked_again(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = hub_module._snapshot

    def then_move(*given: Any, **more: Any) -> Path:
        folder = snapshot(*given, **more)
        hub.commit = "b" * 40
        hub.files["config.json"] = b'{"model_type": "kosmos-2"}'
        return folder

    monkeypatch.setattr(hub_module, "_snapshot", then_move)
    assert "models of kind kosmos-2 are not supported" in refused(CheckpointError)


def test_another_models_settings_are_refused_before_its_weights_are_downloaded(hub: Hub) -> None:
    hub.files["config.json"] = b'{"model_type": "kosmos-2"}'
    assert "models of kind kosmos-2 are not supported" in refused(CheckpointError)
    assert not any("safetensors" in request for request in hub.requests)


def test_a_connection_that_drops_leaves_no_file(hub: Hub, cache: Path, patient: list[float]) -> None:
    hub.cut = 10
    assert "the download broke off" in refused(NetworkError)
    assert patient  # it was tried again
    assert blobs(cache) == []
    hub.cut = None
    assert (find_folder(HUB_ID) / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_weights_of_another_size_are_not_used(hub: Hub, patient: list[float]) -> None:
    hub.files["model.safetensors"] = hub.files["model.safetensors"][:-5]
    assert "bytes instead of" in refused(CheckpointError)


@pytest.mark.parametrize("place", ["/api/models", "model.safetensors"])
@pytest.mark.parametrize(
    ("status", "words"),
    [(500, "the hub has a problem (500)"), (503, "the hub has a problem (503)"), (429, "too many requests (429)")],
)
def test_a_hub_in_trouble_is_named(hub: Hub, patient: list[float], status: int, words: str, place: str) -> None:
    hub.status[place] = status
    assert words in refused(NetworkError)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "RepoNotFound", "there is no such repository"),
        (403, "GatedRepo", "access to it must be granted"),
        (403, "", "the hub refuses access (403)"),
        (404, "RepoNotFound", "there is no such repository"),
    ],
)
def test_a_refusal_is_named(hub: Hub, status: int, code: str, words: str) -> None:
    hub.status["/api/models"] = status
    hub.headers["X-Error-Code"] = code
    assert words in refused(NetworkError)


def test_a_typo_is_recognised_before_anything_is_asked(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="Did you mean flant5-xl"):
        find_folder("flant5-lx")
    assert hub.requests == []


def test_the_token_is_never_printed(
    hub: Hub, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, picture: Path
) -> None:
    hub.status["/api/models"] = 401
    for token in (TOKEN, f"{TOKEN}\n"):
        monkeypatch.setenv("HF_TOKEN", token)
        result = vli("ask", picture, "what?", "--backbone", HUB_ID, "--debug")
        assert result.exit_code == 9
        assert TOKEN not in result.stderr + "".join(capfd.readouterr())


def test_an_empty_blob_is_named_with_what_to_do(hub: Hub) -> None:
    blob = downloaded_weights()
    blob.write_bytes(b"")
    message = refused(CheckpointError)
    assert "model.safetensors is empty" in message
    assert "Delete it and run again" in message
    assert blob.name in message
    blob.unlink()
    assert (find_folder(HUB_ID) / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_a_truncated_shard_is_named(hub: Hub) -> None:
    content = hub.files["model.safetensors"]
    for keep in (4, 200, -1):
        blob = downloaded_weights()
        blob.write_bytes(content[:keep])
        message = refused(CheckpointError, offline=True)
        assert "model.safetensors" in message
        assert "Delete it" in message
        blob.unlink()


def test_a_broken_link_is_named_offline_and_mended_online(hub: Hub) -> None:
    downloaded_weights().unlink()
    message = refused(CheckpointError, offline=True)
    assert "links to a file that no longer exists" in message
    assert "Connect to the network" in message
    assert (find_folder(HUB_ID) / "model.safetensors").is_file()


@pytest.mark.parametrize("content", [b"\xff\0", None])
def test_a_branch_that_names_no_commit_is_named_offline_and_mended_online(
    hub: Hub, cache: Path, content: bytes | None
) -> None:
    find_folder(HUB_ID)
    branch = cache / "models--owner--instructblip" / "refs" / "main"
    branch.unlink()
    branch.mkdir() if content is None else branch.write_bytes(content)
    message = refused(CheckpointError, offline=True)
    assert str(branch.parent) in message
    shutil.rmtree(branch.parent)
    assert (find_folder(HUB_ID) / "model.safetensors").is_file()


def test_an_index_without_its_shard_is_named(hub: Hub) -> None:
    hub.files["model.safetensors.index.json"] = b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'
    message = refused(CheckpointError)
    assert "model-00001-of-00002.safetensors" in message
    assert "it is missing, though model.safetensors.index.json names it" in message


def test_an_index_that_names_a_file_of_4000_characters_is_named(hub: Hub) -> None:
    hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": "x" * 4000}}).encode()
    assert "it is missing, though model.safetensors.index.json names it" in refused(CheckpointError)


def test_a_repository_without_safetensors_is_refused(hub: Hub, picture: Path) -> None:
    hub.files["pytorch_model.bin"] = hub.files.pop("model.safetensors")
    assert not (find_folder(HUB_ID) / "pytorch_model.bin").exists()
    assert "only safetensors are loaded" in vli("ask", picture, "what?", "--backbone", HUB_ID).refusal(5)
    assert not any(".bin" in request for request in hub.requests)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "qformer_tokenizer/tokenizer_config.json"])
def test_a_repository_with_code_is_refused_before_its_weights_are_downloaded(hub: Hub, name: str) -> None:
    values = json.loads(hub.files.get(name, b"{}"))
    hub.files[name] = json.dumps({**values, "auto_map": {"AutoModel": "evil.Model"}}).encode()
    hub.files["evil.py"] = b"raise SystemExit"
    message = refused(CheckpointError)
    assert "asks for code of its own (auto_map)" in message
    assert not any("safetensors" in request or "evil" in request for request in hub.requests)


def test_a_revision_that_moves_is_other_weights_in_another_folder(hub: Hub) -> None:
    before = find_folder(HUB_ID)
    content = bytearray(hub.files["model.safetensors"])
    content[-1] ^= 1
    hub.files["model.safetensors"], hub.commit = bytes(content), "b" * 40
    after = find_folder(HUB_ID)
    assert (before.name, after.name) == ("a" * 40, "b" * 40)
    assert fingerprint(before) != fingerprint(after)  # so a resumed output does not mix them


def test_the_commit_is_in_records_and_in_adapters(hub: Hub, tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    (record,) = vli("ask", tmp_path / "a.png", "what?", "--backbone", HUB_ID, "--json", "--device", "cpu").records
    assert record["revision"] == "a" * 40
    line = {"image": "a.png", "instruction": "what?", "answer": "red"}
    (tmp_path / "d.jsonl").write_text(json.dumps(line) + "\n")
    vli("finetune", "--backbone", HUB_ID, "--data", tmp_path / "d.jsonl", "-o", tmp_path / "out", "--max-steps", "1")
    config = json.loads((tmp_path / "out" / "alignment_config.json").read_text())
    assert config["training"]["revision"] == "a" * 40


DOWNLOAD = """
import sys
from vlinstruct.backends.registry import find_folder
from vlinstruct.errors import VlinstructError
try:
    print(find_folder(sys.argv[1]))
except VlinstructError as error:
    print(error.message)
    sys.exit(error.exit_code)
"""


def test_two_processes_download_the_same_model_at_once(hub: Hub, cache: Path) -> None:
    environment = {**os.environ, "HF_HUB_CACHE": str(cache)}
    command = [sys.executable, "-W", "ignore", "-c", DOWNLOAD, HUB_ID]
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert {Path(out.strip()) for out, _ in told} == {cached_folder(HUB_ID)}
    assert len(blobs(cache)) == len(hub.files)


def test_a_cache_that_cannot_be_written_is_one_line(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    message = refused(ResourceError)
    assert "cannot write the cache" in message
    assert "HF_HOME" in message


@pytest.mark.parametrize(("number", "words"), [(28, "No space left on device"), (30, "Read-only file system")])
def test_a_full_or_read_only_disk_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    def fail(*args: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("huggingface_hub.file_download._download_to_tmp_and_move", fail)
    assert words in refused(ResourceError)


def test_without_a_home_folder_it_is_still_one_line(hub: Hub) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HOME": "/dev/null/none", "HF_ENDPOINT": constants.ENDPOINT}
    command = [sys.executable, "-W", "ignore", "-c", DOWNLOAD, HUB_ID]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (6, "")
    assert ran.stdout.startswith("cannot write the cache (/dev/null/none/")


@pytest.mark.parametrize(
    "changes",
    [
        {"_attn_implementation_internal": "owner/kernel"},
        {"text_config": {"attn_implementation": {"": "owner/kernel"}}},
        {"_experts_implementation": "owner/kernel"},
        {"text_config": {"trust_remote_code": True}},
        {"qformer_config": {"a": [{"auto_map": {"AutoConfig": "evil.Config"}}]}},
        {"custom_pipelines": {"x": {"impl": "evil.Pipeline"}}},
    ],
)
def test_a_malicious_configuration_runs_no_code(hub: Hub, tmp_path: Path, changes: dict[str, Any]) -> None:
    canary = tmp_path / "canary"
    hub.files["config.json"] = json.dumps({**json.loads(hub.files["config.json"]), **changes}).encode()
    hub.files["evil.py"] = f"open({str(canary)!r}, 'w')".encode()
    assert "asks for code of its own" in refused(CheckpointError)
    assert not canary.exists()


def test_what_a_library_writes_by_itself_is_no_code() -> None:
    plain = {"_attn_implementation_internal": "sdpa", "auto_map": None, "trust_remote_code": False, "a": [{}, 1, "x"]}
    assert names_code(plain) is None


def test_a_folder_on_disk_with_code_beside_it_runs_none_of_it(
    tiny_folders: dict[str, Path], tmp_path: Path, picture: Path
) -> None:
    folder = Path(shutil.copytree(tiny_folders["t5"], tmp_path / "model"))
    for name in ("evil.py", "modeling_instructblip.py", "__init__.py", "conftest.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    vli("ask", picture, "what?", "--backbone", folder)
    assert not (tmp_path / "canary").exists()

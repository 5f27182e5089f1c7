"""Folders of a stranger who wants code run, a connection opened or a file read: what happens when commands read them.

PYTHONPATH=tests python -m tools.canary FOLDER

Every way gets a folder of its own, holds its payload, and is run by the real command in this one process, under an
audit hook, which Python lets nobody remove. Prints a JSON object: for each way its exit code, what it said, what the
hook saw, and the files in which the secret's text or a stranger's tags turned up; and what the hook saw of misdeeds
that were done on purpose, so that one who sees nothing is noticed.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import tiny_models
import torch
from command_line import vli
from evaluation.official_files import hatefulmemes
from lavis_files import save, write_bert, write_config, write_language_model
from PIL import Image
from pyarrow import ipc, parquet
from training.training_set import write_data

SECRET = "the-stranger-must-not-see-this"
MODULE = "canary_module"  # what a payload asks to be imported or run
_PROCESSES = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "pty.spawn")
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
ASK, SCORED = "what is this?", "red"
Arguments = Sequence[object]
Way = Callable[[Path], Arguments | list[Arguments]]
WAYS: dict[str, Way] = {}


class Watch:
    """Notes what a way does that nobody asked for.

    Args:
        secret: the file that is not to be opened.
    """

    def __init__(self, secret: Path) -> None:
        self.seen: list[str] = []
        self._secret = secret.stat()
        self._is_on = self._is_busy = False
        sys.addaudithook(self._hook)

    def start(self) -> None:
        self.seen, self._is_on = [], True

    def stop(self) -> list[str]:
        self._is_on = False
        return self.seen

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_on or self._is_busy:
            return
        self._is_busy = True  # what follows raises events of its own
        try:
            if self._is_misdeed(event, arguments):
                self.seen.append(f"{event} {arguments!r:.120}")
        finally:
            self._is_busy = False

    def _is_misdeed(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open" and isinstance(arguments[0], str | bytes):
            try:
                return os.path.samestat(os.stat(arguments[0]), self._secret)  # also through links
            except (OSError, ValueError):
                return False
        if event in ("import", "ctypes.dlopen"):
            return MODULE in str(arguments[0]) or MODULE in str(arguments[1:])
        if event == "compile":
            return MODULE in str(arguments)
        if event == "exec":
            code = arguments[0]
            return MODULE in f"{code.co_filename}{code.co_consts}{code.co_names}"
        return event == "pickle.find_class" or event in _NETWORK or event.startswith(_PROCESSES)


class Program:
    """Runs a shell command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f": {MODULE}",)


PICKLE = pickle.dumps(Program())


def way(make: Way) -> Way:
    WAYS[make.__name__] = make
    return make


# A way's folder lies beside what all share: `t5` a model, `adapter` a trained one, `elsewhere` what is not theirs.
def shared(folder: Path, name: str) -> Path:
    return folder.parent.parent / name


def secret(folder: Path) -> Path:
    return shared(folder, "elsewhere") / "credentials.json"


def picture(folder: Path) -> Path:
    return shared(folder, "elsewhere") / "picture.png"


def change(path: Path, **changes: object) -> None:
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**values, **changes}))


def model(folder: Path) -> Path:
    shutil.copytree(shared(folder, "t5"), folder, dirs_exist_ok=True)
    (folder / f"{MODULE}.py").write_text(f"import os\nos.system(': {MODULE}')\nclass Evil: pass\n")
    return folder


def asked(folder: Path) -> list[Arguments]:
    """The commands that open a model's folder."""
    return [
        ("ask", picture(folder), ASK, "--backbone", folder),
        ("doctor", "--offline", "--backbone", folder),  # which otherwise looks whether the hub answers
        ("convert", folder, "-o", folder.with_name(f"{folder.name}-out")),
    ]


AUTO_MAP: dict[str, object] = dict.fromkeys(("AutoConfig", "AutoModel", "AutoImageProcessor"), f"{MODULE}.Evil")
AUTO_MAP["AutoTokenizer"] = [f"{MODULE}.Evil", f"{MODULE}.Evil"]


def with_auto_map(name: str) -> Way:
    def make(folder: Path) -> list[Arguments]:
        change(model(folder) / name, auto_map=AUTO_MAP)
        return asked(folder)

    return make


for _name in (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "qformer_tokenizer/tokenizer_config.json",
):
    WAYS[f"auto_map in {_name}"] = with_auto_map(_name)


@way
def nested_trust_remote_code(folder: Path) -> list[Arguments]:
    change(model(folder) / "config.json", a=[{"b": {"trust_remote_code": True, "auto_map": AUTO_MAP}}])
    return asked(folder)


@way
def attention_from_a_repository(folder: Path) -> list[Arguments]:
    change(model(folder) / "config.json", _attn_implementation_internal=f"{MODULE}/kernel")
    return asked(folder)


@way
def generation_from_the_folder(folder: Path) -> list[Arguments]:
    (model(folder) / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(f"import {MODULE}")
    change(folder / "generation_config.json", custom_generate=str(folder), trust_remote_code=True)
    return asked(folder)


@way
def quantization_of_a_module(folder: Path) -> list[Arguments]:
    change(model(folder) / "config.json", quantization_config={"quant_method": MODULE, "module": MODULE})
    return asked(folder)


@way
def tokenizer_class_of_its_own(folder: Path) -> list[Arguments]:
    tokenizer = model(folder) / "qformer_tokenizer"
    (tokenizer / "tokenizer.json").unlink()
    (tokenizer / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    change(tokenizer / "tokenizer_config.json", tokenizer_class="Evil", auto_map=AUTO_MAP)
    return asked(folder)


@way
def chat_template_that_climbs(folder: Path) -> list[Arguments]:
    climb = "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os.system(': MODULE') }}"
    climb = climb.replace("MODULE", MODULE)
    change(model(folder) / "tokenizer_config.json", chat_template=climb)
    (folder / "chat_template.jinja").write_text(climb)
    return [*asked(folder), ("chat", picture(folder), "--backbone", folder)]


def with_pickle(name: str) -> Way:
    def make(folder: Path) -> list[Arguments]:
        (model(folder) / "model.safetensors").unlink()
        (folder / name).write_bytes(PICKLE)
        return asked(folder)

    return make


for _name in ("pytorch_model.bin", "model.bin", "model.pt", "model.safetensors"):
    WAYS[f"pickle named {_name}"] = with_pickle(_name)


def with_shard(name: Callable[[Path], str]) -> Way:
    def make(folder: Path) -> list[Arguments]:
        (model(folder) / "model.safetensors").unlink()
        change(folder / "model.safetensors.index.json", weight_map={"query_tokens": name(folder)}, metadata={})
        return asked(folder)

    return make


WAYS["index that climbs"] = with_shard(lambda folder: f"../../elsewhere/{secret(folder).name}")
WAYS["index of a whole path"] = with_shard(lambda folder: str(secret(folder)))


def with_link(name: str) -> Way:
    def make(folder: Path) -> list[Arguments]:
        (model(folder) / name).unlink(missing_ok=True)
        (folder / name).symlink_to(secret(folder))
        return asked(folder)

    return make


for _name in ("LICENSE", "README.md", "special_tokens_map.json", "added_tokens.json", "chat_template.json"):
    WAYS[f"link named {_name}"] = with_link(_name)
for _name in ("config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors"):
    WAYS[f"followed link named {_name}"] = with_link(_name)


def adapted(folder: Path) -> Arguments:
    return ("ask", picture(folder), ASK, "--backbone", shared(folder, "t5"), "--adapter", folder)


def peft(folder: Path, **changes: object) -> Path:
    shutil.copytree(shared(folder, "adapter") / "lora", folder, dirs_exist_ok=True)
    (folder / f"{MODULE}.py").write_text("class Evil: pass\n")
    change(folder / "adapter_config.json", **changes)
    return folder


@way
def adapter_with_auto_map(folder: Path) -> Arguments:
    return adapted(peft(folder, auto_map=AUTO_MAP))


@way
def adapter_of_a_url(folder: Path) -> Arguments:
    address = "http://127.0.0.1:9/model"
    return adapted(peft(folder, base_model_name_or_path=address, revision="main"))


@way
def adapter_of_a_path_outside(folder: Path) -> Arguments:
    mapping = {"base_model_class": "Evil", "parent_library": MODULE}
    return adapted(peft(folder, base_model_name_or_path=str(secret(folder)), auto_mapping=mapping))


@way
def adapter_of_a_pickle(folder: Path) -> Arguments:
    (peft(folder) / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(PICKLE)
    return adapted(folder)


@way
def adapter_of_a_pickle_named_safetensors(folder: Path) -> Arguments:
    (peft(folder) / "adapter_model.safetensors").write_bytes(PICKLE)
    return adapted(folder)


@way
def alignment_of_a_pickle(folder: Path) -> list[Arguments]:
    shutil.copytree(shared(folder, "adapter"), folder, dirs_exist_ok=True)
    (folder / "alignment.safetensors").write_bytes(PICKLE)
    merged = ("convert", folder, "--to", "merged", "--backbone", shared(folder, "t5"), "-o", folder / "merged")
    return [adapted(folder), merged]


WAYS["followed link named lora"] = lambda folder: adapted(_with_lora_elsewhere(folder))


def _with_lora_elsewhere(folder: Path) -> Path:
    shutil.copytree(shared(folder, "adapter"), folder, dirs_exist_ok=True)
    shutil.rmtree(folder / "lora")
    (folder / "lora").symlink_to(secret(folder).parent)
    (secret(folder).parent / "adapter_config.json").unlink(missing_ok=True)
    (secret(folder).parent / "adapter_config.json").symlink_to(secret(folder))
    return folder


def data_commands(folder: Path, data: Path) -> list[Arguments]:
    """The commands that read records."""
    backbone = ("--backbone", shared(folder, "t5"))
    return [
        ("ask", "--data", data, *backbone),
        ("finetune", "--data", data, "--check-data", "--decode"),
        ("finetune", "--data", data, *backbone, "--max-steps", "1", "-o", folder / "trained"),
    ]


def lines(folder: Path, *records: dict[str, object]) -> Path:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps({"question": ASK, "answer": SCORED, **record}) + "\n" for record in records))
    return path


def with_image(image: Callable[[Path], str]) -> Way:
    return lambda folder: data_commands(folder, lines(folder, {"image": image(folder)}))


WAYS["record that climbs"] = with_image(lambda folder: f"../../elsewhere/{secret(folder).name}")
WAYS["record of a whole path"] = with_image(lambda folder: str(secret(folder)))
WAYS["record of a file: URL"] = with_image(lambda folder: f"file://{secret(folder)}")
WAYS["record of an http: URL"] = with_image(lambda folder: "http://127.0.0.1:9/a.png")
WAYS["record of another scheme"] = with_image(lambda folder: "gopher://127.0.0.1:9/a.png")


@way
def record_behind_a_link(folder: Path) -> list[Arguments]:
    (folder / "images").symlink_to(secret(folder).parent)
    return data_commands(folder, lines(folder, {"image": f"images/{secret(folder).name}"}))


@way
def metadata_that_is_a_link(folder: Path) -> list[Arguments]:
    (folder / "metadata.jsonl").symlink_to(secret(folder))
    return data_commands(folder, folder)


@way
def folder_of_pictures_with_a_link(folder: Path) -> Arguments:
    (folder / "secret.png").symlink_to(secret(folder))
    shutil.copy(picture(folder), folder / "own.png")
    return ("ask", folder, ASK, "--backbone", shared(folder, "t5"))


@way
def table_of_formulas(folder: Path) -> list[Arguments]:
    shutil.copy(picture(folder), folder / "own.png")
    cell = f"=cmd|' /C {MODULE}'!A0"
    (folder / "items.csv").write_text(f'id,image,question,answer\n"@SUM(1)",own.png,"{cell}","=1+1"\n')
    return data_commands(folder, folder / "items.csv")


@way
def pickles_in_parquet(folder: Path) -> list[Arguments]:
    rows = [{"image": {"bytes": PICKLE, "path": None}, "question": ASK, "answer": SCORED}]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")
    return data_commands(folder, folder / "items.parquet")


def with_extension(write: Callable[[pa.Table, Path], object], name: str) -> Way:
    def make(folder: Path) -> list[Arguments]:
        # What pyarrow up to 14.0.0 unpickled while it read a schema (CVE-2023-47248).
        metadata = {
            b"ARROW:extension:name": b"arrow.py_extension_type",
            b"ARROW:extension:metadata": PICKLE,
        }
        cells = {"image": "own.png", "question": ASK, "answer": SCORED}
        fields = [pa.field(column, pa.string(), metadata=metadata) for column in cells]
        columns = [pa.array([cell]) for cell in cells.values()]
        shutil.copy(picture(folder), folder / "own.png")
        write(pa.Table.from_arrays(columns, schema=pa.schema(fields)), folder / name)
        return data_commands(folder, folder / name)

    return make


def write_arrow(table: pa.Table, path: Path) -> None:
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


WAYS["pickled type in Arrow"] = with_extension(write_arrow, "items.arrow")
WAYS["pickled type in parquet"] = with_extension(parquet.write_table, "items.parquet")


@way
def pickles_named_as_pictures(folder: Path) -> list[Arguments]:
    (folder / "a.png").write_bytes(PICKLE)
    (folder / "b.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(" + MODULE.encode() + b") run\n")
    (folder / "c.png").write_bytes(b"\x93NUMPY\x01\x00" + PICKLE)
    return data_commands(folder, lines(folder, *({"image": f"{name}.png"} for name in "abc")))


YAML = f"!!python/object/apply:os.system [': {MODULE}']"


@way
def settings_with_a_python_tag(folder: Path) -> Arguments:
    (folder / "settings.yaml").write_text(f"learning_rate: {YAML}\nseed: !!python/name:{MODULE}.Evil\n")
    return ("finetune", "--config", folder / "settings.yaml", "--data", shared(folder, "data"))


@way
def templates_with_a_python_tag(folder: Path) -> Arguments:
    (folder / "mine.yaml").write_text(f"rewrite: {YAML}\ncompare: x\n")
    return ("optimize", ASK, picture(folder), "--templates", folder / "mine.yaml", "--backbone", shared(folder, "t5"))


@way
def templates_that_climb(folder: Path) -> Arguments:
    climb = " {instruction.__class__.__mro__} {{ self.__init__.__globals__ }} {0.__globals__} %(instruction)s ${HOME}"
    templates = vli("optimize", "--show-templates").text
    (folder / "mine.yaml").write_text(templates.replace("{instruction}", "{instruction}" + climb))
    return ("optimize", ASK, picture(folder), "--templates", folder / "mine.yaml", "--backbone", shared(folder, "t5"))


def resumed(folder: Path, damage: Callable[[Path], object]) -> Arguments:
    """A training's folder with two checkpoints, of which the newest is the stranger's."""
    shutil.copytree(shared(folder, "adapter"), folder, dirs_exist_ok=True)
    damage(max((folder / "checkpoints").glob("step-*")))
    data = shared(folder, "data") / "data.jsonl"
    return ("finetune", "--data", data, "--backbone", shared(folder, "t5"), *TRAINED, "-o", folder, "--resume")


TRAINED = ("--learning-rate", "0.01", "--warmup-steps", "1", "--max-steps", "3", "--save-steps", "1", "--lora")
TRAINED += ("--lora-r", "2", "--per-device-train-batch-size", "1", "--gradient-accumulation-steps", "1")


def signed(checkpoint: Path) -> None:
    """Writes the manifest anew: a stranger can compute checksums, too."""
    import hashlib

    names = [path.name for path in checkpoint.iterdir() if path.name != "manifest.json"]
    sums = {name: hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() for name in names}
    (checkpoint / "manifest.json").write_text(json.dumps(sums))


def with_pickled(name: str) -> Way:
    def damage(checkpoint: Path) -> None:
        (checkpoint / name).write_bytes(PICKLE)
        signed(checkpoint)

    return lambda folder: resumed(folder, damage)


for _name in ("state.json", "learning.safetensors", "optimizer.safetensors"):
    WAYS[f"checkpoint with a pickled {_name}"] = with_pickled(_name)


@way
def checkpoint_whose_manifest_climbs(folder: Path) -> Arguments:
    names = (f"../../../../elsewhere/{secret(folder).name}", str(secret(folder)))
    return resumed(folder, lambda checkpoint: change(checkpoint / "manifest.json", **dict.fromkeys(names, "0" * 64)))


@way
def checkpoint_that_is_a_link(folder: Path) -> Arguments:
    def damage(checkpoint: Path) -> None:
        shutil.rmtree(checkpoint)
        checkpoint.symlink_to(secret(folder).parent)

    return resumed(folder, damage)


def with_pth(write: Callable[[Path], object]) -> Way:
    def make(folder: Path) -> list[Arguments]:
        write(folder / "evil.pth")
        language, bert = shared(folder, "lavis") / "language", shared(folder, "lavis") / "bert"
        parts = ("--qformer-tokenizer", bert, "--config", shared(folder, "lavis") / "config.json")
        return [
            ("convert", folder / "evil.pth", language, *parts, "-o", folder / "out"),
            (
                "convert",
                folder / "evil.pth",
                "--to",
                "adapter",
                "--backbone",
                shared(folder, "t5"),
                "-o",
                folder / "out",
            ),
        ]

    return make


def write_torch_script(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", PICKLE)
        archive.writestr("m/constants.pkl", PICKLE)
        archive.writestr("m/code/__torch__.py", f"import {MODULE}")


WAYS["checkpoint of LAVIS that is a raw pickle"] = with_pth(lambda path: path.write_bytes(PICKLE))
WAYS["checkpoint of LAVIS with a program"] = with_pth(lambda path: save(path, {"a": Program()}))
WAYS["checkpoint of LAVIS with a nested program"] = with_pth(
    lambda path: save(path, {"a": torch.zeros(2)}, config={"run": [{"b": (1, Program())}]})
)
WAYS["checkpoint of LAVIS in the old form"] = with_pth(
    lambda path: torch.save({"model": {"a": Program()}}, path, _use_new_zipfile_serialization=False)
)
WAYS["checkpoint of LAVIS as TorchScript"] = with_pth(write_torch_script)


@way
def benchmark_that_climbs(folder: Path) -> Arguments:
    hatefulmemes(folder / "hatefulmemes")
    record = {"id": 1, "img": f"img/../../../../elsewhere/{secret(folder).name}", "label": 1, "text": "x"}
    (folder / "hatefulmemes" / "dev_seen.jsonl").write_text(json.dumps(record) + "\n")
    return ("evaluate", "hatefulmemes", "--data", folder, "--backbone", shared(folder, "t5"), "-o", folder / "out")


@way
def benchmark_with_a_script(folder: Path) -> Arguments:
    hatefulmemes(folder / "hatefulmemes")
    script = f"<script>{MODULE}()</script><img src=x onerror={MODULE}()>"
    records = [
        {"id": f"{label}{script.replace('/', '')}", "img": f"img/{number}.png", "label": label, "text": script}
        for label, number in enumerate(("00053", "00054"))
    ]
    for part in ("dev_seen", "dev_unseen"):
        (folder / "hatefulmemes" / f"{part}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return ("evaluate", "hatefulmemes", "--data", folder, "--backbone", shared(folder, "t5"), "-o", folder / "out")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a way.

    Args:
        exit_codes: of its commands.
        said: on stdout and stderr.
        seen: what the hook noted.
        leaks: in which outputs the secret's text stands.
        scripts: in which pages a stranger's tag stands.
    """

    exit_codes: list[int]
    said: str
    seen: list[str]
    leaks: list[str]
    scripts: list[str]


def run(make: Way, folder: Path, watch: Watch) -> Outcome:
    folder.mkdir()
    commands = make(folder)
    commands = [commands] if isinstance(commands, tuple) else commands
    watch.start()
    results = [vli(*command, "--device", "cpu") if "convert" not in command else vli(*command) for command in commands]
    seen = watch.stop()
    said = "".join(result.stdout.decode(errors="replace") + result.stderr for result in results)
    written = [path for place in folder.parent.glob(f"{folder.name}*") for path in _files(place)]
    leaks = [str(path) for path in written if SECRET.encode() in path.read_bytes()]
    pages = [path for path in written if path.suffix in (".html", ".svg", ".md")]
    scripts = [
        str(path) for path in pages if any(tag in path.read_text() for tag in (f"<script>{MODULE}", "<img src=x"))
    ]
    return Outcome(
        exit_codes=[result.exit_code for result in results],
        said=said,
        seen=seen,
        leaks=leaks + ["what was said"] * (SECRET in said),
        scripts=scripts,
    )


def _files(place: Path) -> list[Path]:
    """Returns the files of a folder that are no links: what a stranger's link leads to was there before."""
    walked = os.walk(place)  # which enters no linked folder
    paths = [Path(folder, name) for folder, _, names in walked for name in names]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def misdeeds(root: Path) -> None:
    """Does what no command may do."""
    import socket

    os.system(":")
    subprocess.run(["true"])
    pickle.loads(PICKLE)
    (root / f"{MODULE}.py").write_text("A = 1")
    sys.path.insert(0, str(root))
    __import__(MODULE)
    sys.path.remove(str(root))
    exec(compile(f"{MODULE} = 1", "<string>", "exec"), {})
    (root / "link").symlink_to(root / "elsewhere" / "credentials.json")
    (root / "link").read_text()
    with socket.socket() as connection:
        connection.connect_ex(("127.0.0.1", 9))


def prepare(root: Path) -> None:
    """Writes what the ways share, and runs each command once, so that what it imports is imported."""
    (root / "elsewhere").mkdir(parents=True)
    (root / "ways").mkdir()
    (root / "elsewhere" / "credentials.json").write_text(
        json.dumps({SECRET: SECRET, "image": SECRET, "question": SECRET})
    )
    Image.new("RGB", (30, 20), "red").save(root / "elsewhere" / "picture.png")
    tiny_models.write_folder("t5", root / "t5")
    (root / "lavis").mkdir()
    write_language_model("t5", root / "lavis" / "language", {})
    write_bert(root / "lavis" / "bert")
    write_config("t5", root / "lavis" / "config.json")
    computed = ("--backbone", root / "t5", "--device", "cpu")
    trained = vli("finetune", "--data", write_data(root / "data"), *computed, *TRAINED, "-o", root / "adapter")
    hatefulmemes(root / "warm" / "hatefulmemes")
    evaluated = vli("evaluate", "hatefulmemes", "--data", root / "warm", *computed, "-o", root / "warm")
    assert trained.exit_code == evaluated.exit_code == 0, trained.stderr + evaluated.stderr
    for command in asked(root / "ways" / "none"):
        vli(*[root / "t5" if argument == root / "ways" / "none" else argument for argument in command])
    parquet.write_table(pa.table({"image": ["a"]}), root / "warm" / "a.parquet")
    vli("ask", "--data", root / "warm" / "a.parquet")


def main(root: Path) -> None:
    prepare(root)
    watch = Watch(root / "elsewhere" / "credentials.json")
    outcomes = {
        name: asdict(run(make, root / "ways" / f"{number:02}", watch))
        for number, (name, make) in enumerate(WAYS.items())
    }
    watch.start()
    misdeeds(root)
    pages = {
        name: page.read_text()
        for number, name in enumerate(WAYS)
        if (page := root / "ways" / f"{number:02}" / "out" / "report.html").exists()
    }
    print(json.dumps({"ways": outcomes, "pages": pages, "misdeeds": watch.stop()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

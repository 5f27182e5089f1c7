"""Which model is loaded: `vlinstruct backbones`, and --backbone, --adapter, --dtype, --offline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import vli

import vlinstruct
from vlinstruct.backends.instructblip.adapter import save_adapter
from vlinstruct.backends.registry import BACKBONES

BUILT_IN = ("mini", "mini-llama")
PAPER = ("flant5-xl", "flant5-xxl", "vicuna-7b", "vicuna-13b")
OTHERS = tuple(name for name in BACKBONES if name not in (*BUILT_IN, *PAPER))


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, in place of this machine's."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub"


def write_to_cache(hub_cache: Path, hub_id: str, name: str) -> None:
    repository = hub_cache / f"models--{hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (repository / "snapshots" / ("0" * 40) / name).write_bytes(b"")


@pytest.fixture
def adapter(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    """The backbone's own projection, with EMA."""
    model = vlinstruct.load(str(tiny_folders["t5"]), device="cpu").backend.network
    model.use_ema = True
    save_adapter(tmp_path / "adapter", model)
    return tmp_path / "adapter"


def test_backbones_are_listed_by_name_with_size_and_source(hub_cache: Path) -> None:
    heads, *lines = vli("backbones").text.splitlines()
    assert heads.split() == ["name", "weights", "download", "source", "licence"]
    assert [line.split()[0] for line in lines] == [*BUILT_IN, *PAPER, *OTHERS]
    words = " ".join(lines[len(BUILT_IN)].split())
    assert words == "flant5-xl 4.02 B 16 GB Salesforce/instructblip-flan-t5-xl MIT"
    assert max(map(len, lines)) <= 100


def test_backbones_are_records_too(hub_cache: Path) -> None:
    records = vli("backbones", "--json").records
    assert [record["id"] for record in records] == [*BUILT_IN, *PAPER, *OTHERS]
    assert records[len(BUILT_IN) + len(PAPER) - 1] == {
        "schema": "vlinstruct.backbone/1",
        "id": "vicuna-13b",
        "status": "ok",
        "source": "Salesforce/instructblip-vicuna-13b",
        "parameters_billion": 14.19,
        "download_gb": 57,
        "licence": "Vicuna non-commercial",
        "is_here": False,
    }


def test_the_plan_is_a_call_of_the_package() -> None:
    plan = vlinstruct.plan_memory("flant5-xl", batch_size=2)
    assert plan.load.rows == 2
    assert {footprint.dtype for footprint in plan.footprints} == {"float32", "bfloat16"}  # float16 overflows
    assert plan.footprints[0].weights_bytes == 4 * plan.weights.total


@pytest.mark.parametrize("name", PAPER)
def test_a_plan_needs_nothing_but_the_name(hub_cache: Path, name: str) -> None:
    (record,) = vli("backbones", name, "--json").records
    entry = next(line for line in vli("backbones", "--json").records if line["id"] == name)
    assert round(sum(record["parameters"].values()) / 1e9, 2) == entry["parameters_billion"]
    sizes = {(setting["dtype"], setting["quantize"]): setting["weights_bytes"] for setting in record["settings"]}
    assert sizes["float32", None] == 2 * sizes["bfloat16", None] == 4 * sum(record["parameters"].values())
    assert sizes["bfloat16", None] > sizes["bfloat16", "8bit"] > sizes["bfloat16", "4bit"]
    assert ("float16", None) in sizes or "t5" in name
    for setting in record["settings"]:
        assert setting["total_bytes"] == setting["weights_bytes"] + setting["cache_bytes"] + setting["activation_bytes"]
        assert setting["fits_on"] == [
            place for place, has in record["free_bytes"].items() if setting["total_bytes"] <= has
        ]


def test_a_plan_is_a_table_that_fits_a_terminal(tiny_folders: dict[str, Path]) -> None:
    lines = vli("backbones", tiny_folders["llama"], "--batch-size", "4").text.splitlines()
    assert "free here: cpu " in lines[1]
    assert lines[2].startswith("4 x (128 + 64) tokens at once")
    assert [line.split()[:2] for line in lines[4:7]] == [["float32", "-"], ["float32", "8bit"], ["float32", "4bit"]]
    assert all(len(line) <= 100 for line in lines[1:])


def test_a_plan_of_something_unknown_says_where_the_names_are() -> None:
    assert "`vlinstruct backbones` lists the names" in vli("backbones", "nonsense").refusal(5)


def test_a_quantized_model_answers_and_is_told_apart(picture: Path) -> None:
    whole, small = (
        vli("score", picture, "what?", "--json", *more).records[0]["scores"][0]["ias"]
        for more in ((), ("--quantize", "8bit"))
    )
    assert whole != small
    assert small == pytest.approx(whole, rel=0.1)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_a_backbone_in_the_cache_is_here(hub_cache: Path, name: str) -> None:
    write_to_cache(hub_cache, "Salesforce/instructblip-vicuna-7b", name)
    here = {record["id"]: record["is_here"] for record in vli("backbones", "--json").records}
    assert [here[name] for name in PAPER] == [False, False, True, False]
    (line,) = [line for line in vli("backbones").text.splitlines() if line.startswith("vicuna-7b")]
    assert " here " in line
    assert "download" not in line


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("command", ["ask", "optimize", "score"])
def test_a_paper_backbone_needs_the_network(picture: Path, hub_cache: Path, command: str, name: str) -> None:
    arguments = ["what?", picture] if command == "optimize" else [picture, "what?"]
    line = vli(command, *arguments, "--backbone", name, "--offline").refusal(9)
    assert "not in the cache and offline" in line
    assert "instructblip-" in line


@pytest.mark.parametrize("name", ["flant5-xll", "./none", "a\x1b[2Jb", "\u202e"])
def test_an_unknown_backbone_is_refused_with_where_the_names_are(picture: Path, name: str) -> None:
    line = vli("ask", picture, "what?", "--backbone", name, "--offline").refusal(5)
    assert "unknown backbone" in line
    assert "`vlinstruct backbones` lists the names" in line


def test_a_folder_that_is_no_model_is_refused(picture: Path, tmp_path: Path) -> None:
    assert "is missing in" in vli("ask", picture, "what?", "--backbone", tmp_path).refusal(5)


def test_the_option_wins_over_the_environment(
    picture: Path, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLINSTRUCT_BACKBONE", "nonsense")
    assert "(nonsense)" in vli("ask", picture, "what?").refusal(5)
    (record,) = vli("ask", picture, "what?", "--backbone", tiny_folders["llama"], "--json").records
    assert record["backbone"] == str(tiny_folders["llama"])


def test_the_dtype_changes_the_last_digits_only(picture: Path) -> None:
    single, half = (
        vli("score", picture, "what?", "--json", "--dtype", dtype).records[0]["scores"][0]["ias"]
        for dtype in ("float32", "bfloat16")
    )
    assert single != half
    assert single == pytest.approx(half, rel=0.1)


def test_an_adapter_with_ema_changes_scores_and_choices(picture: Path, adapter: Path) -> None:
    for arguments in (("score", picture, "what?"), ("ask", picture, "what?", "--choices", "yes,no")):
        plain, aligned, repeated = (
            vli(*arguments, "--json", *more).text for more in ((), ("--adapter", adapter), ("--adapter", adapter))
        )
        assert aligned == repeated != plain


def test_an_adapter_changes_what_is_optimized(picture: Path, adapter: Path) -> None:
    plain, aligned = (
        vli("optimize", "what?", picture, "--json", *more).records[0] for more in ((), ("--adapter", adapter))
    )
    assert aligned["rewritten"]["text"] == plain["rewritten"]["text"]  # the language model alone
    assert aligned["initial"]["ias"] != plain["initial"]["ias"]


def test_an_adapter_for_another_backbone_is_refused(
    picture: Path, adapter: Path, tiny_folders: dict[str, Path]
) -> None:
    line = vli("ask", picture, "what?", "--adapter", adapter, "--backbone", tiny_folders["llama"]).refusal(5)
    assert "was made for another backbone" in line


def test_a_damaged_or_missing_adapter_is_refused(picture: Path, adapter: Path) -> None:
    assert "unknown adapter (./none)" in vli("ask", picture, "what?", "--adapter", "./none").refusal(5)
    config = adapter / "alignment_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "sha256": "0" * 64}))
    assert "damaged adapter" in vli("ask", picture, "what?", "--adapter", adapter).refusal(5)


@pytest.mark.parametrize("command", ["bench --backbone", "finetune -o x --backbone", "convert -o x", "backbones"])
def test_what_needs_a_models_files_refuses_a_servers_address(command: str, tmp_path: Path) -> None:
    """And asks it nothing: nobody listens there."""
    words = [str(tmp_path / "x") if word == "x" else word for word in command.split()]
    assert "http://127.0.0.1:1/v1" in vli(*words, "http://127.0.0.1:1/v1").refusal(5)

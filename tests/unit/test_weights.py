"""Model folders of strangers, made by hand: each way to do harm is refused by name, and what is whole passes."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gtft.errors import EvidenceError, GtftError
from gtft.evals.asking.load import BaseRecord, find_base
from gtft.recipe.schema import Base
from gtft.training.base import locate_base
from gtft.weights import MOST_HEADER, count_parameters, inspect_weights, read_gguf, read_safetensors
from training_case import Recorder

CONFIG = {
    "model_type": "llama",
    "hidden_size": 4,
    "intermediate_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "vocab_size": 4,
}


class Harmful:
    """What unpickles as a call."""

    def __reduce__(self) -> Any:
        return (os.getcwd, ())


def pack(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(dtype: str = "F32", shape: Any = (2, 2), begin: int = 0, end: int = 16) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def tensors(**shapes: tuple[int, ...]) -> bytes:
    """A whole safetensors file of float32 zeros."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4
        for n in shape:
            size *= n
        header[name.replace("__", ".")] = entry("F32", shape, at, at + size)
        at += size
    return pack({"__metadata__": {"format": "pt"}, **header}, bytes(at))


def gguf(
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    tensors: int = 1,
    values: int = 1,
    shape: tuple[int, ...] = (4, 2),
    kind: int = 0,
    offset: int = 0,
    data: bytes = bytes(32),
    value: bytes | None = None,
) -> bytes:
    def text(s: bytes) -> bytes:
        return struct.pack("<Q", len(s)) + s

    out = magic + struct.pack("<IQQ", version, tensors, values)
    listed = struct.pack("<IIQ", 9, 8, 2) + text(b"a") + text(b"b")
    out += text(b"tokenizer.ggml.tokens") + (listed if value is None else value)
    out += text(b"blk.0.w") + struct.pack("<I", len(shape))
    out += b"".join(struct.pack("<Q", n) for n in shape) + struct.pack("<IQ", kind, offset)
    return out + bytes(-len(out) % 32) + data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that is whole."""
    place = tmp_path / "model"
    place.mkdir()
    (place / "model.safetensors").write_bytes(tensors(model__w=(40, 4)))
    (place / "config.json").write_text(json.dumps(CONFIG))
    (place / "tokenizer.json").write_text("{}")
    (place / "README.md").write_text("cat\nand dog\n")
    return place


def refuse(folder: Path, name: str, about: str, *, strict: bool = True) -> EvidenceError:
    with pytest.raises(EvidenceError) as e:
        inspect_weights(folder, strict=strict)
    assert name in e.value.what
    assert about in e.value.why
    assert e.value.fix
    return e.value


def test_a_whole_model_passes_and_its_numbers_are_counted(folder: Path) -> None:
    inspect_weights(folder)
    assert count_parameters(folder) == 160


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("archive/data.pkl", pickle.dumps(Harmful()))
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        info = tarfile.TarInfo("pickle")
        data = pickle.dumps(Harmful())
        info.size = len(data)
        t.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("pytorch_model.bin", b"anything"),
        ("training_args.BIN", b"anything"),
        ("optimizer.pt", b"anything"),
        ("weights.pkl", b"anything"),
        ("vectors.npy", b"anything"),
        ("ext.so", b"anything"),
        ("notes.txt", pickle.dumps(Harmful())),
        ("README.md", pickle.dumps(Harmful(), protocol=2)),
        ("vocab", pickle.dumps(Harmful(), protocol=5)),
        ("weights.dat", pickle.dumps(Harmful(), protocol=0)),
        ("weights.dat", b"(ios\nsystem\n(S'true'\ntR."),
        ("tokenizer.model", zipped()),
        ("plots.png", tarred()),
        ("weights.dat", b"\x1f\x8b\x08" + bytes(20)),
        ("weights.dat", b"\x93NUMPY" + bytes(20)),
        ("weights.dat", b"\x89HDF\r\n"),
        ("helper", b"\x7fELF" + bytes(20)),
    ],
)
def test_programs_are_refused_under_any_name(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    refuse(folder, name, "")
    if name not in COPIES:
        refuse(folder, name, "", strict=False)


COPIES = (
    "pytorch_model.bin",
    "pytorch_model-00001-of-00002.bin",
    "pytorch_model.bin.index.json",
    "training_args.bin",
    "tf_model.h5",
    "rust_model.ot",
    "original/consolidated.00.pth",
)


def test_a_base_may_hold_its_weights_again_in_a_format_that_nothing_loads(folder: Path) -> None:
    for name in COPIES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(zipped())
    inspect_weights(folder)
    refuse(folder, "", "run code")
    # In what we made it is nobody's copy, and PEFT loads pickles.
    for name in ("artifact.json", "adapter_config.json"):
        (folder / name).write_text("{}")
        refuse(folder, "", "run code", strict=False)
        (folder / name).unlink()


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_a_pickle_that_is_the_only_copy_is_refused(folder: Path, missing: str) -> None:
    (folder / "pytorch_model.bin").write_bytes(zipped())
    (folder / missing).unlink()
    refuse(folder, "pytorch_model.bin", "run code", strict=False)


def test_a_link_in_the_name_of_a_copy_is_still_a_link(folder: Path, tmp_path: Path) -> None:
    (folder / "pytorch_model.bin").symlink_to(tmp_path)
    refuse(folder, "pytorch_model.bin", "link", strict=False)


def test_code_that_a_base_names_is_not_run_so_it_is_passed_over_there_only(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, "auto_map": {"AutoModel": "x.Y"}}))
    inspect_weights(folder)
    refuse(folder, "config.json", "auto_map")
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["x.Y", null]}}')
    refuse(folder, "tokenizer_config.json", "auto_map", strict=False)


@pytest.mark.parametrize("below", ["original", "a/b"])
def test_programs_are_found_in_folders_below(folder: Path, below: str) -> None:
    (folder / below).mkdir(parents=True)
    (folder / below / "consolidated.00.pth").write_bytes(b"PK")
    refuse(folder, "consolidated.00.pth", "run code")


def test_a_pickle_that_is_called_safetensors_or_gguf_is_refused(folder: Path) -> None:
    (folder / "model.gguf").write_bytes(pickle.dumps(Harmful()) + bytes(64))
    refuse(folder, "model.gguf", "does not begin")
    (folder / "model.gguf").unlink()
    (folder / "model.safetensors").write_bytes(pickle.dumps(Harmful()))
    refuse(folder, "model.safetensors", "header")


def test_links_are_refused_wherever_they_point(folder: Path, tmp_path: Path) -> None:
    for target in (tmp_path / "secret", folder / "config.json", tmp_path):
        link = folder / "weights.safetensors"
        link.symlink_to(target)
        refuse(folder, "weights.safetensors", "link")
        link.unlink()


def test_the_links_of_the_hubs_cache_are_its_own(folder: Path, tmp_path: Path) -> None:
    repo = tmp_path / "models--a--b"
    snapshot = repo / "snapshots" / "0123"
    (repo / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for n, path in enumerate(sorted(folder.iterdir())):
        path.rename(repo / "blobs" / f"{n:040x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{n:040x}")
    inspect_weights(snapshot)
    (repo / "blobs" / "bin").write_bytes(zipped())
    (snapshot / "pytorch_model.bin").symlink_to("../../blobs/bin")
    inspect_weights(snapshot)
    (tmp_path / "secret").write_text("secret")
    (snapshot / "merges.txt").symlink_to(tmp_path / "secret")
    refuse(snapshot, "merges.txt", "link")
    # A link by way of the blobs that leads out of them.
    (snapshot / "merges.txt").unlink()
    (repo / "blobs" / "out").symlink_to(tmp_path / "secret")
    (snapshot / "merges.txt").symlink_to("../../blobs/out")
    refuse(snapshot, "merges.txt", "link")


def test_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "tokenizer.model")
    refuse(folder, "tokenizer.model", "neither")


def test_a_folder_without_an_end_is_refused(folder: Path) -> None:
    deep = folder
    for n in range(9):
        deep = deep / str(n)
        deep.mkdir()
    (deep / "a").write_text("")
    refuse(folder, "model", "levels")


@pytest.mark.parametrize(
    ("data", "about"),
    [
        (b"", "too short"),
        (b"\x00" * 7, "too short"),
        (struct.pack("<Q", 0), "JSON"),
        (struct.pack("<Q", 1 << 62), "claims"),
        (struct.pack("<Q", MOST_HEADER + 1) + bytes(64), "claims"),
        (struct.pack("<Q", 50) + b"{}", "claims"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs"),
        (pack(b"\x80\x04."), "JSON"),
        (pack([]), "object"),
        (pack(b'{"a":' + b"[" * 100_000), "JSON"),
        (pack(b'{"w":1,"w":2}'), "twice"),
        (pack({"w": 1}), "none of a tensor"),
        (pack({"w": entry("F99")}, bytes(16)), "none of a tensor"),
        (pack({"w": entry(shape=(2, -2))}, bytes(16)), "no sizes"),
        (pack({"w": entry(shape=(2, True))}, bytes(16)), "no sizes"),
        (pack({"w": entry(shape=(2, 2.0))}, bytes(16)), "no sizes"),
        (pack({"w": entry(shape=(1,) * 9)}, bytes(16)), "no sizes"),
        (pack({"w": entry(shape=(1 << 40, 1 << 40))}, bytes(16)), "shape needs"),
        (pack({"w": entry(end=8)}, bytes(8)), "shape needs"),
        (pack({"w": entry(begin=16, end=0)}, bytes(16)), "shape needs"),
        (pack({"w": entry(begin=4, end=20)}, bytes(20)), "hole"),
        (pack({"v": entry(), "w": entry()}, bytes(16)), "overlap"),
        (pack({"w": entry()}, bytes(15)), "take 16 bytes"),
        (pack({"w": entry()}, bytes(17)), "take 16 bytes"),
    ],
)
def test_damaged_safetensors_are_refused(folder: Path, data: bytes, about: str) -> None:
    (folder / "model.safetensors").write_bytes(data)
    refuse(folder, "model.safetensors", about)


def test_empty_tensors_and_metadata_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(
        pack({"__metadata__": {}, "e": entry(shape=(0, 5), end=0), "w": entry()}, bytes(16))
    )
    assert [t.numbers for t in read_safetensors(path)] == [0, 4]


def test_a_whole_gguf_passes(folder: Path) -> None:
    (folder / "model.gguf").write_bytes(gguf())
    inspect_weights(folder)
    (tensor,) = read_gguf(folder / "model.gguf")
    assert (tensor.name, tensor.shape, tensor.bytes) == ("blk.0.w", (4, 2), 32)


_LONG = struct.pack("<IIQ", 9, 8, 1 << 60)


@pytest.mark.parametrize(
    ("data", "about"),
    [
        (b"GG", "goes on after"),
        (gguf(magic=b"GGJT"), "does not begin"),
        (gguf(version=1), "version 1"),
        (gguf(tensors=1 << 50), "tensors"),
        (gguf(values=1 << 50), "values"),
        (gguf(values=3), ""),
        (gguf(value=_LONG), "entries"),
        (gguf(value=struct.pack("<IIQ", 9, 4, 1 << 60)), "goes on after"),
        (gguf(value=struct.pack("<IQ", 8, 1 << 60)), "bytes"),
        (gguf(value=struct.pack("<I", 77)), "type 77"),
        (gguf(value=struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 40), "type 9"),
        (gguf(kind=99), "type 99"),
        (gguf(kind=2, shape=(33,)), "shape (33,)"),
        (gguf(shape=(1 << 50, 2)), "shape"),
        (gguf(offset=7), "offset 7"),
        (gguf(offset=32), "end at byte"),
        (gguf(shape=(1 << 30, 1 << 30)), "end at byte"),
        (gguf(data=b""), "end at byte"),
    ],
)
def test_damaged_gguf_files_are_refused(folder: Path, data: bytes, about: str) -> None:
    (folder / "model.gguf").write_bytes(data)
    refuse(folder, "model.gguf", about)


@pytest.mark.parametrize(
    "named",
    ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", ".\\x", 7, None],
)
def test_an_index_names_only_files_beside_it(folder: Path, named: Any) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.w": named}}))
    refuse(folder, "model.safetensors.index.json", "outside")


def test_an_index_tells_what_its_files_hold(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.w": "model.safetensors"}}))
    inspect_weights(folder)
    assert count_parameters(folder) == 160
    for doc, about in (
        ({"weight_map": {"model.w": "absent.safetensors"}}, "no safetensors file"),
        ({"weight_map": {"model.w": "tokenizer.json"}}, "no safetensors file"),
        ({"weight_map": {"model.v": "model.safetensors"}}, "does not hold"),
        ({"weight_map": ["model.w"]}, "weight_map"),
        ([], "object"),
    ):
        index.write_text(json.dumps(doc))
        refuse(folder, "model.safetensors.index.json", about)


@pytest.mark.parametrize(
    ("name", "doc", "about"),
    [
        ("config.json", {**CONFIG, "auto_map": {"AutoModel": "x.Y"}}, "auto_map"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["x.Y", None]}}, "auto_map"),
        ("config.json", {**CONFIG, "transformers_weights": "../a.safetensors"}, "outside"),
        ("config.json", {**CONFIG, "num_hidden_layers": 10**9}, "num_hidden_layers"),
        ("config.json", {**CONFIG, "vocab_size": -1}, "vocab_size"),
        (
            "config.json",
            {"model_type": "odd", "text_config": {"hidden_size": 10**12}},
            "hidden_size",
        ),
        ("config.json", {**CONFIG, "num_hidden_layers": 10**7}, "parameters"),
        ("config.json", {**CONFIG, "vocab_size": 10**8}, "parameters"),
        ("config.json", {**CONFIG, "num_local_experts": 10**12}, "num_local_experts"),
    ],
)
def test_a_config_that_asks_for_more_than_a_model_is_refused(
    folder: Path, name: str, doc: Any, about: str
) -> None:
    (folder / name).write_text(json.dumps(doc))
    refuse(folder, name, about)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A LoRA adapter that is whole, of a layer and of the embeddings."""
    place = tmp_path / "adapter"
    place.mkdir()
    held = tensors(q__lora_A__weight=(4, 8), embed_tokens__lora_embedding_A=(6, 9))
    (place / "adapter_model.safetensors").write_bytes(held)
    (place / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 4, "rank_pattern": {"embed_tokens": 6}})
    )
    return place


@pytest.mark.parametrize(
    ("doc", "about"),
    [
        ({"auto_mapping": {"parent_library": "os"}}, "auto_mapping"),
        ({"megatron_config": {}, "layer_replication": [[0, 9]]}, "layer_rep"),
        ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "megatron"),
        ({"r": 10**9}, "ranks"),
        ({"r": 4, "rank_pattern": {"q": 10**9}}, "ranks"),
        ({"r": "4"}, "ranks"),
        ({"r": 4, "rank_pattern": [1]}, "ranks"),
        ({"r": 4, "peft_type": None}, "kind"),
        ({"peft_type": "XLORA", "adapters": {"0": "/etc"}}, "kind"),
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 10**12}, "kind"),
    ],
)
def test_an_adapter_that_asks_for_more_than_it_holds_is_refused(
    adapter: Path, doc: dict[str, Any], about: str
) -> None:
    inspect_weights(adapter, strict=True)
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **doc}))
    for strict in (True, False):
        refuse(adapter, "adapter_config.json", about, strict=strict)


@pytest.mark.parametrize("held", [{}, {"x": (1,)}, {"x__lora_embedding_A": (1, 4)}])
def test_ranks_are_those_of_tensors_that_are_there(
    adapter: Path, held: dict[str, tuple[int, ...]]
) -> None:
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2147483648}')
    (adapter / "adapter_model.safetensors").write_bytes(tensors(**held))
    refuse(adapter, "adapter_config.json", "ranks")
    (adapter / "adapter_model.safetensors").unlink()
    refuse(adapter, "adapter_config.json", "at most 0")


def test_an_adapter_within_a_base_is_refused(folder: Path, adapter: Path) -> None:
    inspect_weights(folder)
    for path in adapter.iterdir():
        path.rename(folder / path.name)
    refuse(folder, "adapter_config.json", "beside config.json", strict=False)


# -- the base that an adapter was trained on


def record(folder: Path) -> BaseRecord:
    """The base as a training records it."""
    found = locate_base(
        Base(model=str(folder)),
        text_file=folder / "none.txt",
        root=folder.parent,
        workspace=folder.parent,
        watch=Recorder(),
        clock=float,
    )
    doc: dict[str, Any] = found.as_dict()
    return BaseRecord(**doc)


def shard(folder: Path) -> None:
    """The weights as two files and an index."""
    (folder / "model.safetensors").unlink()
    names = {f"w{n}": f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    for tensor, name in names.items():
        (folder / name).write_bytes(tensors(**{tensor: (40, 4)}))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


@pytest.mark.parametrize("sharded", [False, True])
def test_a_base_is_the_one_of_the_training_until_a_file_is_added_that_loaders_take_in(
    folder: Path, adapter: Path, sharded: bool
) -> None:
    if sharded:
        shard(folder)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    recorded = record(folder)
    (folder / "LICENSE").write_text("any")
    (folder / "pytorch_model.bin").write_bytes(zipped())
    assert find_base(recorded, folder, folder) == folder
    additions = {
        "generation_config.json": b'{"eos_token_id": 5}',
        "adapter_model.safetensors": (adapter / "adapter_model.safetensors").read_bytes(),
        "tokenizer_config.json": b"{}",
    }
    if sharded:
        additions["model.safetensors"] = tensors(w1=(40, 4), w2=(40, 4))
    for name, data in additions.items():
        (folder / name).write_bytes(data)
        with pytest.raises(EvidenceError, match="has changed since") as e:
            find_base(recorded, folder, folder)
        assert f"{name} was added" in e.value.why
        (folder / name).unlink()
    (folder / "pytorch_model.bin").unlink()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).write_bytes((adapter / name).read_bytes())
    with pytest.raises(EvidenceError, match=r"adapter_config\.json"):
        find_base(recorded, folder, folder)


def test_an_index_that_leaves_out_a_file_of_its_series_is_refused(folder: Path) -> None:
    shard(folder)
    inspect_weights(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"w1": "model-00001-of-00002.safetensors"}}')
    refuse(folder, index.name, "1 files of the 2", strict=False)


def test_a_config_that_is_no_json_or_has_no_end_is_refused(folder: Path) -> None:
    for data in (b"\xff\xfe{", b'{"a":1,"a":2}', b"[" * 100_000, b" " * ((16 << 20) + 1)):
        (folder / "config.json").write_bytes(data)
        refuse(folder, "config.json", "")


def change_byte(data: bytes, at: int, to: int) -> bytes:
    return data[: at % len(data)] + bytes([to]) + data[at % len(data) + 1 :]


_WHOLE: dict[str, Callable[[], bytes]] = {
    "model.safetensors": lambda: tensors(a=(3, 2), b=(5,)),
    "model.gguf": gguf,
}


@pytest.mark.parametrize("name", list(_WHOLE))
@given(at=st.integers(0, 4096), to=st.integers(0, 255), cut=st.integers(0, 64))
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_damage_is_refused_or_harmless_and_never_a_crash(
    tmp_path: Path, name: str, at: int, to: int, cut: int
) -> None:
    """One byte changed, the end cut off: the sizes still add up, or the file is refused by name."""
    data = change_byte(_WHOLE[name](), at, to)
    data = data[: len(data) - cut]
    (tmp_path / name).write_bytes(data)
    try:
        inspect_weights(tmp_path)
    except GtftError as e:
        assert isinstance(e, EvidenceError)
        return
    read = read_safetensors if name.endswith("safetensors") else read_gguf
    assert sum(t.bytes for t in read(tmp_path / name)) <= len(data)


@pytest.mark.parametrize("suffix", [".safetensors", ".gguf", ".json", ".dat", ""])
@given(data=st.binary(max_size=300))
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_random_files_never_crash_the_inspection(tmp_path: Path, suffix: str, data: bytes) -> None:
    (tmp_path / f"config{suffix}").write_bytes(data)
    try:
        inspect_weights(tmp_path)
    except EvidenceError as e:
        assert "config" in e.what


@given(
    header=st.dictionaries(
        st.text(max_size=5),
        st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5),
    )
)
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_json_header_is_read_or_refused(tmp_path: Path, header: dict[str, Any]) -> None:
    (tmp_path / "a.safetensors").write_bytes(pack(header, bytes(8)))
    with pytest.raises(EvidenceError):
        inspect_weights(tmp_path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(GtftError):
        inspect_weights(tmp_path / "absent")

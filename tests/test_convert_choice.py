"""Which files of a Hugging Face directory count, as in transformers; values that are odd but right; wrong
types; two conversions at once."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, fake_hub, tiny
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import convert
from data import UserError
from plumbing.checkpoint import load_checkpoint, save_checkpoint
from plumbing.hf_format import check_architecture
from plumbing.hf_weights import write_tensors

UP = "model.layers.0.mlp.up_proj.weight"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def checkpoint(tmp_path):
    path = str(tmp_path / "ours" / "4B.pt")
    facts = {"tokenizer": "toy", "preset": "toy", "tokens": 4, "id": "x", "recipe": "base"}
    save_checkpoint(path, tiny(600), facts)
    return path


@pytest.fixture
def source(tmp_path, checkpoint):
    folder = tmp_path / "hf"
    convert.main(["to-hf", checkpoint, str(folder)])
    return folder


def bring_in(source, out):
    convert.main(["from-hf", str(source), "--out", str(out)])
    return load_checkpoint(str(out))[0]


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def older(tensors):
    """The same names with other numbers, as an earlier step has them."""
    return {name: x - 1 for name, x in tensors.items()}


def write_shards(folder, tensors, parts=3, index=True):
    names = sorted(tensors)
    weight_map = {}
    for i in range(parts):
        file = f"model-{i + 1:05d}-of-{parts:05d}.safetensors"
        save_file({name: tensors[name] for name in names[i::parts]}, folder / file)
        weight_map |= dict.fromkeys(names[i::parts], file)
    if index:
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return weight_map


def is_new(model):
    """Whether these are the weights that the checkpoint of these tests has."""
    return torch.equal(model.layers[0].mlp.up_proj.weight, tiny(600).layers[0].mlp.up_proj.weight)


def refusal(source, out):
    with pytest.raises((UserError, OSError)) as caught:
        bring_in(source, out)
    assert "\n" not in str(caught.value) and not out.parent.exists()
    return str(caught.value)


# --- which files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [True, False])
def test_the_single_file_wins_over_shards(source, tmp_path, index):
    """Shards of an earlier step, with their index or without, are not read."""
    write_shards(source, older(load_file(source / "model.safetensors")), index=index)
    assert is_new(bring_in(source, tmp_path / "out" / "a.pt"))


def test_the_index_alone_says_which_shards_count(source, tmp_path):
    tensors = load_file(source / "model.safetensors")
    write_shards(source, older(tensors), parts=2)
    write_shards(source, tensors, parts=3)
    save_file(older(tensors), source / "model_backup.safetensors")
    (source / "model.safetensors").unlink()
    assert is_new(bring_in(source, tmp_path / "out" / "a.pt"))
    (source / INDEX).unlink()  # now two sets of shards are there, and nothing tells which counts
    said = refusal(source, tmp_path / "new" / "a.pt")
    assert "stands in model-00001-of-00002.safetensors and in model-00001-of-00003" in said
    assert "remove the files that do not belong to the model" in said


def test_a_backup_is_not_taken_for_the_model(source, tmp_path):
    (source / "model.safetensors").rename(source / "model_backup.safetensors")
    said = refusal(source, tmp_path / "out" / "a.pt")
    assert "holds neither model.safetensors nor its index (only model_backup.safetensors" in said
    assert "rename it to model.safetensors" in said


def test_the_index_and_its_shards_have_to_agree(source, tmp_path):
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    weight_map = write_shards(source, tensors)
    first = weight_map[UP]
    other = next(file for file in weight_map.values() if file != first)

    def with_index(changed):
        (source / INDEX).write_text(json.dumps({"weight_map": changed}))
        return refusal(source, tmp_path / "out" / "a.pt")

    assert f"holds '{UP}', which {INDEX} does not place there" in with_index(
        weight_map | {UP: other}
    )
    said = with_index({name: file for name, file in weight_map.items() if name != UP})
    assert f"holds '{UP}', which {INDEX} does not place there" in said
    assert "lacks 'extra', which" in with_index(weight_map | {"extra": other})
    assert f"{INDEX} is damaged: no weight_map" in with_index([])
    assert f"{INDEX} is damaged: no weight_map" in with_index({})
    for strange in ("../a.safetensors", "a/b.safetensors", "", 3, None, "a\n.safetensors", "a.bin"):
        assert f"{INDEX} is damaged: it places '{UP}' in" in with_index(weight_map | {UP: strange})
    save_file({UP: tensors[UP]} | load_file(source / other), source / other)  # in two of the files
    assert f"'{UP}'" in with_index(weight_map)


def test_a_link_to_a_file_that_is_gone(source, tmp_path):
    """As in a cache of the hub that was cleaned."""
    (source / "model.safetensors").unlink()
    (source / "model.safetensors").symlink_to(source / "gone")
    assert "a link to one that is gone" in refusal(source, tmp_path / "out" / "a.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_not_finite_are_refused_by_name(source, tmp_path, value, dtype):
    def change(tensors):
        tensors[UP] = tensors[UP].to(dtype)
        tensors[UP][2, 3] = value

    rewrite(source, change)
    said = refusal(source, tmp_path / "out" / "a.pt")
    assert f"model.safetensors: {UP} holds NaN or infinite numbers" in said


def test_what_convert_wrote_comes_back_with_the_same_bits_or_not_at_all(source, tmp_path):
    path = source / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # a bit of the last number, which no checksum of the format covers
    path.write_bytes(content)
    said = refusal(source, tmp_path / "out" / "a.pt")
    assert f"{path} is damaged: its weights are not those that were written" in said


def test_the_same_weights_are_the_same_bytes(tmp_path):
    """Of any type; the library reads them, and the order in which they are given is no matter."""
    tensors = {
        "b": torch.arange(6.0).reshape(2, 3),
        "a": torch.arange(3.0).bfloat16(),
        "c": torch.arange(5.0).half(),
        "d": torch.arange(6.0).reshape(2, 3).T,
    }
    write_tensors(tmp_path / "1.safetensors", tensors)
    write_tensors(tmp_path / "2.safetensors", dict(reversed(tensors.items())))
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes()
    loaded = load_file(tmp_path / "1.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, x in tensors.items():
        assert torch.equal(loaded[name], x) and loaded[name].dtype == x.dtype
    with safe_open(tmp_path / "1.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"  # older versions of transformers insist on it


# --- values that are odd, but right ---------------------------------------------------------------


@pytest.mark.parametrize("old", [True, False])
def test_a_default_rope_scaling_is_none(source, tmp_path, old):
    if old:
        edit(source, rope_parameters=None)
    default = {"rope_type": "default"}
    for i, scaling in enumerate([default, {"type": "default"}, default | {"factor": 1}, {}, None]):
        edit(source, rope_scaling=scaling)
        assert is_new(bring_in(source, tmp_path / "out" / f"{i}.pt"))


def test_stored_frequencies_are_ignored(source, tmp_path):
    def change(tensors):
        tensors["model.rotary_emb.inv_freq"] = torch.ones(4)
        tensors["model.layers.1.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    rewrite(source, change)
    assert is_new(bring_in(source, tmp_path / "out" / "a.pt"))


def test_the_name_that_olmo2_had_before(source, tmp_path):
    edit(source, model_type="olmo_1124", architectures=["Olmo1124ForCausalLM"])
    assert is_new(bring_in(source, tmp_path / "a" / "a.pt"))
    edit(source, architectures=["Olmo2ForCausalLM"])
    assert is_new(bring_in(source, tmp_path / "b" / "a.pt"))


def test_the_rope_scaling_counts_where_both_are_there(source, tmp_path):
    """As transformers 5 takes them."""
    edit(source, rope_theta=77.0, rope_scaling={"rope_type": "default", "rope_theta": 55.0})
    assert bring_in(source, tmp_path / "a" / "a.pt").config.rope_theta == 55.0


# --- wrong types ----------------------------------------------------------------------------------

STRANGE = ["text", 1.5, True, [1], {"a": 1}, -1, 10**400]
WRONG_TYPES = [
    *[("hidden_size", value) for value in [*STRANGE, None, 0, 10**12]],
    *[("num_hidden_layers", value) for value in [10**9, 4000, "2", [2]]],
    *[("vocab_size", value) for value in [10**15, "600"]],
    *[("num_attention_heads", value) for value in [0, -4, 3, [4], "4"]],
    *[("num_key_value_heads", value) for value in ["4", [4], 3, 1.0]],
    *[("rms_norm_eps", value) for value in ["1e-6", [1], {}, 0, float("nan"), float("inf")]],
    *[("rope_parameters", value) for value in ["default", [1], 3, {"rope_type": ["default"]}]],
    ("rope_parameters", {"rope_theta": "500"}),
    ("rope_parameters", {"rope_theta": 5.0, "full_attention": {"rope_type": "yarn"}}),
    ("rope_parameters", {"rope_theta": 5.0, "partial_rotary_factor": 0.5}),
    *[("rope_scaling", value) for value in ["linear", 2.0, [1], {"factor": 2.0}, {"type": "yarn"}]],
    ("rope_scaling", {"rope_type": "default", "type": "linear"}),
    *[("architectures", value) for value in ["Olmo3ForCausalLM", [1], [[]], {"a": 1}, ["a", "b"]]],
    *[("model_type", value) for value in [None, 3, ["olmo2"], "olmo3", "line\nbreak"]],
    *[("hidden_act", value) for value in [None, 3, ["silu"]]],
    *[("head_dim", value) for value in ["8", [8], 16]],
    *[("tie_word_embeddings", value) for value in ["false", [0]]],
    *[("sliding_window", value) for value in [0, "x", []]],
    ("transformers_weights", "other.safetensors"),
]


def test_a_wrong_type_in_config_json_is_named_by_field(source, tmp_path):
    path = source / "config.json"
    content = path.read_text()
    for key, value in WRONG_TYPES:
        path.write_text(json.dumps(json.loads(content) | {key: value}))
        said = refusal(source, tmp_path / "out" / "a.pt")
        field = {"model_type": "architecture", "architectures": "architecture"}.get(key, key)
        fields = [field, "do not divide", "asks for 4000 layers", "config.json asks for"]
        fields += ["rope_theta"] if key.startswith("rope") else []
        assert str(source) in said and len(said) < 400, said
        assert any(one in said for one in fields), (key, value, said)


def test_a_single_architecture_may_stand_without_a_list(tmp_path):
    check_architecture(tmp_path, {"model_type": "olmo2", "architectures": "Olmo2ForCausalLM"})


# --- the hub --------------------------------------------------------------------------------------


def download(source, tmp_path):
    """from-hf of a repository with these files -> the files that were fetched."""
    sha = "0" * 39 + "1"
    repo = "some/olmo2"
    fetched = set()

    def answer(method, path):
        files = [p.name for p in sorted(source.iterdir())]
        if path in (
            f"/api/models/{repo}",
            *[f"/api/models/{repo}/revision/{n}" for n in ("main", sha)],
        ):
            siblings = [{"rfilename": name} for name in files]
            about = {"_id": "1", "id": repo, "modelId": repo, "sha": sha, "private": False}
            return 200, about | {"siblings": siblings}, {}
        if path == f"/api/models/{repo}/tree/{sha}":
            about = {"type": "file", "oid": "2"}
            tree = [about | {"path": n, "size": (source / n).stat().st_size} for n in files]
            return 200, tree, {}
        name = path.rpartition("/")[2]
        if path == f"/{repo}/resolve/{sha}/{name}" and name in files:
            fetched.add(name)
            about = {"ETag": f'"{name}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
            return 200, (source / name).read_bytes(), about
        return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}

    out = tmp_path / "new" / "a.pt"
    with fake_hub(answer, tmp_path / "cache") as env:
        done = subprocess.run(
            [sys.executable, "convert.py", "from-hf", repo, "--out", str(out)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=os.environ | env,
        )
    assert done.returncode == 0, done.stderr
    assert is_new(load_checkpoint(str(out))[0])
    return fetched


def test_only_the_files_that_count_are_fetched(source, tmp_path):
    tensors = load_file(source / "model.safetensors")
    write_shards(source, older(tensors))
    save_file(older(tensors), source / "model_backup.safetensors")
    small = {"config.json", "tokenizer.json"}
    assert download(source, tmp_path / "a") == {*small, "model.safetensors"}
    weight_map = write_shards(source, tensors, parts=2)
    (source / "model.safetensors").unlink()
    assert download(source, tmp_path / "b") == {*small, INDEX, *weight_map.values()}


# --- where the result goes ------------------------------------------------------------------------


def test_to_hf_writes_over_nothing(checkpoint, source, tmp_path):
    before = open(checkpoint, "rb").read()
    for out in (checkpoint, f"{checkpoint}/"):
        with pytest.raises(UserError, match="is a file; give a new directory"):
            convert.main(["to-hf", checkpoint, out])
    with pytest.raises(UserError, match="is not an empty directory; give a new one"):
        convert.main(["to-hf", checkpoint, os.path.dirname(checkpoint)])
    with pytest.raises(OSError, match="is a folder, not a checkpoint; it holds Hugging Face files"):
        convert.main(["to-hf", str(source), str(tmp_path / "new")])
    assert open(checkpoint, "rb").read() == before and not (tmp_path / "new").exists()


def test_from_hf_onto_something_else(source, tmp_path):
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "notes.pt").write_text("mine")
    for name, message in {
        "folder.pt": "is a folder",
        "notes.pt": "is damaged or not a checkpoint",
        "notes.pt/a.pt": "is a file, not a folder",
    }.items():
        with pytest.raises((UserError, OSError), match=message):
            convert.main(["from-hf", str(source), "--out", str(tmp_path / name)])
    assert (tmp_path / "notes.pt").read_text() == "mine"
    with pytest.raises(UserError, match="is a file; give the directory that it is in"):
        convert.main(["from-hf", str(source / "config.json"), "--out", str(tmp_path / "a.pt")])


def at_once(*args):
    """Two equal commands -> their statuses, and all that they said."""
    started = []
    for _ in range(2):
        started.append(
            subprocess.Popen(
                [sys.executable, "convert.py", *map(str, args)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    said = [process.communicate(timeout=100)[0] for process in started]
    return sorted(process.returncode for process in started), "".join(said)


def test_two_equal_commands_at_once(checkpoint, source, tmp_path):
    statuses, said = at_once("from-hf", source, "--out", tmp_path / "new" / "a.pt")
    assert statuses == [0, 0] and "Traceback" not in said and said.count("wrote ") == 1
    assert "a.pt is finished; nothing to do" in said
    statuses, said = at_once("to-hf", checkpoint, tmp_path / "out")
    assert statuses == [0, 1] and "Traceback" not in said and said.count("wrote ") == 1
    assert "exists and is not an empty directory" in said
    assert is_new(bring_in(tmp_path / "out", tmp_path / "back" / "a.pt"))
    left = [path.name for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".lock")]
    assert not left

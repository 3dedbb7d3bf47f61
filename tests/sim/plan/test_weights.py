"""Weights in shards: written by base station, read as one, never half."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import tiny_scores
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sim.errors import UserError
from sim.learn.compact import app as compact
from sim.learn.compact import packed_matrices
from sim.plan import weights as weights_module
from sim.plan.weights import Weights, built_on, find_weights, load_weights, save_weights

KEPT = ("posterior", "embedding.centre", "embedding.scale")
WIDE = ("network.mean", "network.deviation")


def some(stations: int = 4, size: int = 1000) -> Weights:
    tensors = {f"edge.{k}.network.a": torch.full((size,), float(k)) for k in range(stations)}
    return Weights({"key": [1, 2]}, tensors | {"cloud.b": torch.ones(3), "edge.1.posterior": torch.eye(2)})


def test_shards_hold_whole_base_stations_and_read_as_one(tmp_path: Path) -> None:
    whole, path = some(), tmp_path / "a.safetensors"
    assert save_weights(path, whole) == [path]
    plain = load_weights(path)
    paths = save_weights(path, whole, limit_bytes=4500)  # 2000 B each in half precision
    assert [p.name for p in paths] == ["a-00001-of-00002.safetensors", "a-00002-of-00002.safetensors"]
    assert not path.exists()
    for name in (path, *paths):
        found = load_weights(name)
        assert found.config == whole.config and found.tensors.keys() == whole.tensors.keys()
        for tensor in whole.tensors:
            assert torch.equal(found.tensors[tensor], plain.tensors[tensor])
        assert found.digest == load_weights(paths[0]).digest != plain.digest
    assert save_weights(path, whole, limit_bytes=1) == sorted(tmp_path.glob("*"))  # one for the cloud, four for the BSs
    assert len(load_weights(path).tensors) == 6 and len(list(tmp_path.glob("*"))) == 5
    assert save_weights(path, whole) == [path] == list(tmp_path.glob("*"))


def test_a_missing_shard_is_one_sentence(tmp_path: Path) -> None:
    paths = save_weights(tmp_path / "a.safetensors", some(), limit_bytes=4500)
    paths[1].unlink()
    with pytest.raises(UserError, match=r"a-00002-of-00002\.safetensors are missing"):
        load_weights(paths[0])
    with pytest.raises(UserError, match=r"b\.safetensors are missing"):
        load_weights(tmp_path / "b.safetensors")


def test_shards_of_different_files_are_one_sentence(tmp_path: Path) -> None:
    first = save_weights(tmp_path / "a.safetensors", some(), limit_bytes=4500)
    other = save_weights(tmp_path / "b.safetensors", Weights({"key": 3}, some().tensors), limit_bytes=4500)
    other[1].replace(first[1])
    with pytest.raises(UserError, match="their configurations differ"):
        load_weights(first[0])


def test_shards_are_found_like_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "ASSET_FOLDER", tmp_path)
    folder = tmp_path / "w"
    save_weights(folder / "s.safetensors", some(), limit_bytes=4500)
    assert find_weights("w", "s", 8).name == "s-00001-of-00002.safetensors"
    save_weights(folder / "s-b4.safetensors", some(), limit_bytes=4500)
    assert find_weights("w", "s", 4).name == "s-b4-00001-of-00002.safetensors"
    assert find_weights("w", "s", 8).name == "s-00001-of-00002.safetensors"
    save_weights(folder / "t-b4.safetensors", some(), limit_bytes=4500)
    assert find_weights("w", "t", 8).name == "t-b4-00001-of-00002.safetensors"
    with pytest.raises(UserError, match="No weights are shipped"):
        find_weights("w", "u", 8)


def test_trained_weights_are_found_where_none_are_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights_module, "ASSET_FOLDER", tmp_path / "shipped")
    trained = Path("checkpoints") / "lab"
    for name in ("s-b2", "s-b4", "t"):
        save_weights(trained / f"{name}.safetensors", some())
    assert find_weights("lab", "s", 2) == trained / "s-b2.safetensors"
    assert find_weights("lab", "s", 6) == trained / "s-b4.safetensors"
    assert find_weights("lab", "t", None) == trained / "t.safetensors"
    with pytest.raises(UserError, match="none in checkpoints/lab: name a file with --weights"):
        find_weights("lab", "s", None)
    save_weights(tmp_path / "shipped" / "lab" / "s-b6.safetensors", some())
    assert find_weights("lab", "s", 2).name == "s-b6.safetensors"


def test_what_both_ends_must_agree_on_stays_in_single_precision(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    made = tiny_scores.weights(1)
    save_weights(path, made)
    found = load_weights(path)
    for name, value in found.tensors.items():
        kept = any(name.endswith(word) for word in KEPT)
        wide = any(name.endswith(word) for word in WIDE)
        expected = torch.float32 if kept else torch.bfloat16 if wide else torch.float16
        assert value.dtype == expected or not value.is_floating_point(), name
        assert not kept or torch.equal(value, made.tensors[name])
    assert torch.equal(found.cloud()["posterior"], made.tensors["edge.0.posterior"][None])


def test_what_base_stations_share_is_kept_once_and_given_to_each(tmp_path: Path) -> None:
    names = ("edge.all.embedding.down.0.weight", "edge.all.embedding.rescale.weight", "cloud.network.embedding.0.bias")
    networks = {name: torch.full((7,), 1 / 3 + n) for n, name in enumerate(names)}
    own = {"edge.1.embedding.rescale.weight": torch.zeros(7), "edge.all.step.4": torch.full((2,), 1 / 3)}
    path = tmp_path / "a.safetensors"
    save_weights(path, Weights({}, networks | own | {"cloud.centre": torch.full((3,), 0.1)}))
    found = load_weights(path)
    assert {found.tensors[name].dtype for name in names} == {torch.float16}
    assert found.tensors["edge.all.step.4"].dtype == found.tensors["cloud.centre"].dtype == torch.float32
    assert found.cloud().keys() == {"network.embedding.0.bias", "centre"}
    for bs in (0, 1, 255):
        share = found.edge(bs)
        assert share.keys() == {"embedding.down.0.weight", "embedding.rescale.weight", "step.4"}
        assert share["embedding.down.0.weight"] is found.tensors["edge.all.embedding.down.0.weight"]  # no copy
        assert bool(share["embedding.rescale.weight"].any()) == (bs != 1)


def test_what_base_stations_share_has_one_shard(tmp_path: Path) -> None:
    shared = {"edge.all.embedding.a": torch.full((1000,), 9.0)}
    whole = Weights({}, some().tensors | shared)
    paths = save_weights(tmp_path / "a.safetensors", whole, limit_bytes=1)
    held = [set(load_file(path)) for path in paths]
    assert held[1] == {"edge.all.embedding.a"} and sum(len(names) for names in held) == len(whole.tensors)
    assert load_weights(paths[0]).edge(3).keys() == {"embedding.a", "network.a"}


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_a_packed_matrix_is_read_as_code_times_scale_of_its_row(tmp_path: Path, bits: int) -> None:
    draw = torch.Generator().manual_seed(bits)
    matrix = torch.randn((1, 96, 64), generator=draw) * torch.logspace(-4, 2, 96)[None, :, None]
    whole = Weights({"a": 1}, {"edge.0.m": matrix, "edge.0.bias": torch.ones(64), "edge.1.m": matrix.clone()})
    packed = packed_matrices(whole, bits, {})
    assert packed.keys() == {"edge.0.m", "edge.1.m"}
    path = tmp_path / "a.safetensors"
    files = save_weights(path, whole, limit_bytes=1, packed=packed)  # a shard each
    found = load_weights(path)
    assert len(files) == 2 and found.tensors.keys() == whole.tensors.keys()
    assert torch.equal(found.tensors["edge.0.m"], packed["edge.0.m"].tensor())
    # An independent reader of the file, and an independent bound of what rounding costs a Gaussian row.
    with safe_open(files[0], framework="pt") as file:
        octets, scale = file.get_tensor("edge.0.m").numpy(), file.get_tensor("edge.0.m.scale").float().numpy()
    code = np.frombuffer(zlib.decompress(octets.tobytes()), np.uint8).reshape(96, 64) - 2.0 ** (bits - 1)
    assert np.array_equal(found.tensors["edge.0.m"][0].numpy(), (code * scale[:, None]).astype(np.float32))
    rows = matrix[0].numpy()
    error = np.linalg.norm(code * scale[:, None] - rows, axis=1) / np.linalg.norm(rows, axis=1)
    assert error.max() < {2: 0.8, 4: 0.15, 6: 0.035, 8: 0.01}[bits]
    assert sum(file.stat().st_size for file in files) < 2 * (96 * 64 * bits / 8 + 96 * 2) + 2000


@pytest.mark.parametrize("bits", [3, 8])
def test_packed_files_of_format_2_are_read(tmp_path: Path, bits: int) -> None:
    draw = np.random.default_rng(bits)
    code, scale = draw.integers(0, 2**bits, (8, 16)), 2.0 ** np.arange(-4, 4)
    planes = code[..., None] >> np.arange(bits)[::-1] & 1
    tensors = {
        "cloud.m": torch.from_numpy(np.packbits(planes.astype(np.uint8).ravel())),
        "cloud.m.scale": torch.from_numpy(scale).bfloat16(),
    }
    metadata = {"format": "cofix-weights-2", "config": "{}", "packed": json.dumps({"cloud.m": [bits, 8, 16]})}
    save_file(tensors, tmp_path / "a.safetensors", metadata=metadata)
    found = load_weights(tmp_path / "a.safetensors").tensors["cloud.m"].numpy()
    assert np.array_equal(found, (code - 2 ** (bits - 1)) * scale[:, None])


def test_codes_are_compressed_to_their_entropy(tmp_path: Path) -> None:
    whole = Weights({}, {"cloud.m": torch.randn((256, 256), generator=torch.Generator().manual_seed(1))})
    packed = packed_matrices(whole, 6, {})
    [path] = save_weights(tmp_path / "a.safetensors", whole, packed=packed)
    share = np.bincount(packed["cloud.m"].code.numpy().ravel() + 32) / 256**2
    entropy_bytes = -np.sum(share[share > 0] * np.log2(share[share > 0])) * 256**2 / 8
    assert entropy_bytes < 256**2 * 6 / 8
    assert path.stat().st_size < 1.02 * entropy_bytes + 256 * 2 + 400


def test_a_file_builds_on_another_one_beside_it(tmp_path: Path) -> None:
    base, path = tmp_path / "base.safetensors", tmp_path / "own.safetensors"
    save_weights(base, Weights({"a": 1, "b": 1}, {"cloud.x": torch.ones(2), "cloud.y": torch.ones(2)}))
    made_on = {"file": base.name, "digest": load_weights(base).digest}
    save_weights(path, Weights({"b": 2, "base": made_on}, {"cloud.y": torch.zeros(2), "rate.1.centre": torch.ones(3)}))
    found = load_weights(path)
    assert found.config == {"a": 1, "b": 2}
    assert {name: value.tolist() for name, value in found.tensors.items()} == {
        "cloud.x": [1, 1], "cloud.y": [0, 0], "rate.1.centre": [1, 1, 1]
    }  # fmt: skip
    assert found.edge(1)["rate.centre"] is found.cloud()["rate.1.centre"] and not found.edge(0)
    third = tmp_path / "third.safetensors"
    made = Weights(found.config | {"c": 3}, found.tensors | {"cloud.y": torch.full((2,), 2.0)})
    save_weights(third, built_on(found, path, made))
    assert load_weights(third, alone=True).tensors.keys() == {"cloud.y"}
    last = load_weights(third)
    assert last.config == made.config and last.tensors["cloud.y"].tolist() == [2, 2]
    assert last.tensors["cloud.x"].tolist() == [1, 1] and last.digest != found.digest
    alone = load_weights(path, alone=True)
    assert alone.digest == found.digest and "cloud.x" not in alone.tensors
    save_weights(base, Weights({"a": 1}, {"cloud.x": torch.ones(2)}))
    with pytest.raises(UserError, match=r"base\.safetensors, which has changed since"):
        load_weights(path)
    base.unlink()
    with pytest.raises(UserError, match=r"base\.safetensors are missing"):
        load_weights(path)
    for wrong in (3, {"file": 3}, {"file": path.name, "digest": alone.digest}):
        save_weights(path, Weights({"base": wrong}, {"cloud.y": torch.zeros(2)}))
        with pytest.raises(UserError, match=r"damaged|has changed since"):
            load_weights(path)


def test_a_file_builds_on_two_others_of_which_the_first_has_precedence(tmp_path: Path) -> None:
    bases = []
    for name, config, tensors in (
        ("one", {"a": 1, "b": 1}, {"cloud.x": torch.ones(2)}),
        ("two", {"b": 2, "c": 2}, {"cloud.x": torch.zeros(2), "cloud.y": torch.zeros(2)}),
    ):
        file = tmp_path / f"{name}.safetensors"
        save_weights(file, Weights(config, tensors))
        bases.append({"file": file.name, "digest": load_weights(file).digest})
    path = tmp_path / "both.safetensors"
    save_weights(path, Weights({"c": 3, "base": bases}, {}))
    found = load_weights(path)
    assert found.config == {"a": 1, "b": 1, "c": 3}
    assert {name: value.tolist() for name, value in found.tensors.items()} == {"cloud.x": [1, 1], "cloud.y": [0, 0]}
    save_weights(tmp_path / "two.safetensors", Weights({}, {}))
    with pytest.raises(UserError, match=r"two\.safetensors, which has changed since"):
        load_weights(path)


def test_the_same_weights_have_the_same_bytes(tmp_path: Path) -> None:
    whole = Weights({"a": "ä"}, {"cloud.m": torch.randn(8, 16), "cloud.n": torch.arange(3)})
    packed = packed_matrices(whole, 6, {})
    written = set()
    for number in range(12):
        [path] = save_weights(tmp_path / f"{number}.safetensors", whole, packed=packed)
        written.add(path.read_bytes())
    assert len(written) == 1
    assert load_weights(path).config == {"a": "ä"}


def test_a_packed_file_that_was_cut_or_changed_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    whole = Weights({}, {"cloud.m": torch.randn(64, 64)})
    save_weights(path, whole, packed=packed_matrices(whole, 4, {}))
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in ("cloud.m", "cloud.m.scale")}
    for change in ({"cloud.m": [4, 64, 65]}, {"cloud.m": [9, 64, 64]}, {"cloud.m": ["4", 64]}, {"cloud.m": None}, [1]):
        save_file(tensors, path, metadata=metadata | {"packed": json.dumps(change)})
        with pytest.raises(UserError, match="truncated or damaged"):
            load_weights(path)
    octets = tensors["cloud.m"]
    for damaged in (octets[:-5], torch.cat([octets, octets]), octets.flip(0), torch.zeros(0, dtype=torch.uint8)):
        save_file(tensors | {"cloud.m": damaged.clone()}, path, metadata=metadata)
        with pytest.raises(UserError, match="truncated or damaged"):
            load_weights(path)
    save_file({"cloud.m": tensors["cloud.m"]}, path, metadata=metadata)
    with pytest.raises(UserError, match="truncated or damaged"):
        load_weights(path)


def test_the_command_packs_wide_layers_in_bits_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_weights(source, Weights({"k": 2}, {"edge.0.wide.w": torch.randn(64, 640), "cloud.w": torch.randn(64, 64)}))
    with pytest.raises(SystemExit) as done:
        compact(["weights", str(source), str(target), "--bits", "8", "--also", "wide=3"])
    assert done.value.code == 0 and str(target) in capsys.readouterr().out
    with safe_open(target, framework="pt") as file:
        assert json.loads(file.metadata()["packed"]) == {"edge.0.wide.w": [3, 64, 640], "cloud.w": [8, 64, 64]}
    before, after = load_weights(source), load_weights(target)
    assert after.config == before.config
    for name, most in (("edge.0.wide.w", 0.25), ("cloud.w", 0.01)):
        error = (after.tensors[name] - before.tensors[name].float()).norm() / before.tensors[name].float().norm()
        assert 0 < error < most


@pytest.mark.parametrize(
    "config",
    ["[]", "3", "null", "[" * 100_000, '{"a": ' * 100_000, '{"hidden": 1000000000}', '{"net": {"w": [1e9, 99999]}}'],
)
def test_a_strange_configuration_is_one_sentence(tmp_path: Path, config: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"cloud.m": torch.zeros(2)}, path, metadata={"format": "cofix-weights-1", "config": config})
    with pytest.raises(UserError, match=r"w\.safetensors are (truncated or )?damaged"):
        load_weights(path)

"""Weights in shards: written by base station, read as one, never half."""

from pathlib import Path

import pytest
import tiny_scores
import torch
from safetensors.torch import load_file

from sim.errors import UserError
from sim.learn import weights as weights_module
from sim.learn.weights import Weights, find_weights, load_weights, save_weights

KEPT = ("network.mean", "network.deviation", "posterior", "embedding.centre", "embedding.scale")


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


def test_what_both_ends_must_agree_on_stays_in_single_precision(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    made = tiny_scores.weights(1)
    save_weights(path, made)
    found = load_weights(path)
    for name, value in found.tensors.items():
        kept = any(name.endswith(word) for word in KEPT)
        assert value.dtype == (torch.float32 if kept else torch.float16) or not value.is_floating_point(), name
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

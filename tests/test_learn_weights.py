"""Weights in shards: written by base station, read as one, never half."""

from pathlib import Path

import pytest
import tiny_scores
import torch

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

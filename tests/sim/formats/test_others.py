"""Files of measured data sets: DICHASUS and ESPARGOS (TFRecord), CAEZ-5G (NPZ), LuViRa (MATLAB)."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from scipy.io import savemat
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.summary.writer.record_writer import RecordWriter

import cli
from sim.formats.tfrecord import parse_tensor
from sim.world.scenario import load_scenario
from sim.world.store import load_traced

USERS, TONES = 12, 16
TYPES = {"float32": 1, "float64": 2, "complex64": 8}
PLACES = [[0.0, 0.0, 1.5], [10.0, 0.0, 1.5]]
RADIO = ["--field", "carrier_hz=1.272e9", "--field", "bandwidth_hz=50e6", "--field", "tone_spacing_hz=1e6"]
POINTED = ["--field", "site_yaw_deg=[0, 90]", "--field", "site_pitch_deg=[0, 0]"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def draws(*shape: int) -> np.ndarray:
    draw = np.random.default_rng(3)
    return (draw.standard_normal(shape) + 1j * draw.standard_normal(shape)).astype(np.complex64)


def positions() -> np.ndarray:
    return np.random.default_rng(4).uniform(0, 9, (USERS, 3))


def example_class() -> Any:
    """tensorflow.Example as its .proto file has it, made by Google's library."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, *fields in (
        ("BytesList", ("value", 1, kinds.TYPE_BYTES, "", 3)),
        ("FloatList", ("value", 1, kinds.TYPE_FLOAT, "", 3)),
        ("Feature", ("bytes_list", 1, kinds.TYPE_MESSAGE, ".t.BytesList", 1),
         ("float_list", 2, kinds.TYPE_MESSAGE, ".t.FloatList", 1)),
        ("Entry", ("key", 1, kinds.TYPE_STRING, "", 1), ("value", 2, kinds.TYPE_MESSAGE, ".t.Feature", 1)),
        ("Features", ("feature", 1, kinds.TYPE_MESSAGE, ".t.Entry", 3)),
        ("Example", ("features", 1, kinds.TYPE_MESSAGE, ".t.Features", 1)),
    ):  # fmt: skip
        message = file.message_type.add(name=name)
        for field, number, kind, of, label in fields:
            message.field.add(name=field, number=number, type=kind, label=label, type_name=of or None)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


def serialised(array: np.ndarray) -> bytes:
    tensor = TensorProto(dtype=TYPES[array.dtype.name], tensor_content=array.tobytes())
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor.SerializeToString()


def write_records(path: Path, records: list[dict[str, np.ndarray]]) -> None:
    made = example_class()
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for record in records:
            example = made()
            for name, array in record.items():
                entry = example.features.feature.add(key=name)
                entry.value.bytes_list.value.append(serialised(array))
            example.features.feature.add(key="time").value.float_list.value.append(1.5)
            writer.write(example.SerializeToString())


def imported(name: str) -> Any:
    return load_traced(load_scenario(f"data/{name}/{name}.toml"))


def test_dichasus_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    csi = draws(USERS, 8, TONES)  # ascending
    raw = np.fft.ifftshift(csi, axes=2)
    parts = np.stack([raw.real, raw.imag], -1).astype(np.float32)
    write_records(Path("cf02.tfrecords"), [{"csi": c, "pos-tachy": p} for c, p in zip(parts, positions(), strict=True)])
    antennas = [{"location": place, "assignments": rows} for place, rows in
                zip(PLACES, ([[0, 1], [2, 3]], [[7, 6], [5, 4]]), strict=True)]  # fmt: skip
    Path("spec.json").write_text(json.dumps({"antennas": antennas, "bandwidth": 48e6}))
    assert cli.main(["import", "cf02.tfrecords", *RADIO, *POINTED]) == 0
    found = imported("cf02")
    assert np.allclose(found.position, positions())
    assert np.allclose(found.csi[:, 0, 0], csi[:, [0, 2, 1, 3]])  # column by column
    assert np.allclose(found.csi[:, 1, 0], csi[:, [7, 5, 6, 4]])
    offsets = {"sto": list(range(8)), "cpo": [0.1] * 8}
    Path("reftx-offsets-cf02.json").write_text(json.dumps(offsets))
    assert (
        cli.main(["import", "cf02.tfrecords", "--name", "calibrated", *RADIO[:2], *POINTED, "--tone-every", "4"]) == 0
    )
    found = imported("calibrated")
    tone = np.arange(TONES)[1::4]
    turned = csi[:, 5, 1::4] * np.exp(1j * (5 * 2 * np.pi * tone / TONES + 0.1))
    assert np.allclose(found.csi[:, 1, 0, 1], turned, atol=1e-5)
    numerology = load_scenario("data/calibrated/calibrated.toml").numerology
    assert (numerology.tones, numerology.tone_spacing_hz) == (4, pytest.approx(12e6))
    capsys.readouterr()
    whole = Path("cf02.tfrecords").read_bytes()
    for damaged, said in ((whole[:-9], "record 11 is damaged (it is cut short)"),
                          (b"\1" + whole[1:], "record 0 is damaged (its length has another checksum)")):  # fmt: skip
        Path("cf02.tfrecords").write_bytes(damaged)
        assert cli.main(["import", "cf02.tfrecords", "--name", "bad", *RADIO, *POINTED]) == 2
        assert capsys.readouterr().err == f"cf02.tfrecords: {said}.\n"
    Path("spec.json").unlink()
    assert cli.main(["import", "cf02.tfrecords", "--name", "bad", *RADIO, *POINTED]) == 2
    assert "spec.json does not say where the arrays are" in capsys.readouterr().err


def test_espargos_is_read() -> None:
    csi, rssi = draws(2 * USERS, 2, 2, 3, TONES), np.linspace(-20, 0, 12, dtype=np.float32).reshape(2, 2, 3)
    place = np.concatenate([positions()] * 2)
    records = [{"csi": c, "pos": p, "rssi": rssi} for c, p in zip(csi, place, strict=True)]
    write_records(Path("esp.tfrecords"), records)
    antennas = [
        {"location": PLACES[0], "upvector": [0, 0, 2], "rightvector": [1, 0, 0]},  # faces along −y
        {"location": PLACES[1], "upvector": [0, 0.6, 0.8], "rightvector": [-1, 0, 0]},  # along y, and down
    ]
    Path("spec.json").write_text(json.dumps({"antennas": antennas}))
    assert cli.main(["import", "esp.tfrecords", *RADIO, "--every", "2"]) == 0
    found = imported("esp")
    scenario = load_scenario("data/esp/esp.toml")
    assert (scenario.array.rows, scenario.array.columns) == (2, 3)
    assert [site.yaw_deg for site in scenario.sites] == pytest.approx([-90, 90])
    assert [site.pitch_deg for site in scenario.sites] == pytest.approx([0, np.degrees(np.arcsin(0.6))])
    assert np.allclose(found.position, place[::2])
    scaled = csi[::2] * 10 ** (rssi / 20)[..., None]
    assert np.allclose(found.csi[:, 1, 0, 2 * 2 + 1], scaled[:, 1, 1, 2], atol=1e-6)  # column 2, row 1


def test_tensors_are_read_whatever_their_type() -> None:
    for kind in TYPES:
        array = draws(2, 3).astype(kind) if kind == "complex64" else draws(2, 3).real.astype(kind)
        assert np.array_equal(parse_tensor(serialised(array)), array)
    with pytest.raises(ValueError, match="a tensor of type 7"):
        parse_tensor(TensorProto(dtype=7).SerializeToString())


def test_caez_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    channel = draws(USERS, 2, 4, 1, TONES, 3)
    rest = {"noise_var": np.zeros((USERS, 2)), "oru_pos_dict": np.array({"oru": 1}, dtype=object)}
    np.savez("caez.npz", H=channel, pos=positions()[:, :2], **rest)
    places = ["--field", f"site_position={PLACES}", "--field", "array=[2, 2, 1]", "--field", "height_m=1.2"]
    assert cli.main(["import", "caez.npz", *places, *POINTED]) == 0
    found = imported("caez")
    assert np.allclose(found.csi[:, :, 0], channel[:, :, :, 0].mean(-1))
    assert np.allclose(found.position[:, 2], 1.2)
    assert load_scenario("data/caez/caez.toml").numerology.carrier_hz == 3.45e9
    np.savez("caez.npz", H=np.abs(channel[:, :, :, 0, :, 0]), pos=positions()[:, :2])
    assert cli.main(["import", "caez.npz", *places, *POINTED, "--name", "bad"]) == 2
    assert "are needed, not features of them" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_luvira_is_read(version: str, capsys: pytest.CaptureFixture[str]) -> None:
    channel = draws(USERS, TONES, 4)  # (time, frequency, antenna)
    if version == "5":
        savemat("Grid101.mat", {"H": channel})
    else:
        with h5py.File("Grid101.mat", "w", userblock_size=512) as file:  # MATLAB's axes are reversed there
            file["H"] = compound(channel.T)
        head = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
        with Path("Grid101.mat").open("r+b") as raw:
            raw.write(head)
    np.savetxt("place.csv", positions(), delimiter=",")
    more = ["--field", "array=[2, 2, 1]", "--field", 'position="place.csv"', "--field", f"site_position={PLACES[:1]}"]
    pointed = ["--field", "site_yaw_deg=[0]", "--field", "site_pitch_deg=[0]"]
    assert cli.main(["import", "Grid101.mat", *RADIO, *more, *pointed]) == 0
    found = imported("Grid101")
    assert np.allclose(found.csi[:, 0, 0], channel.swapaxes(1, 2))
    assert np.allclose(found.position, positions())
    assert cli.main(["import", "Grid101.mat", *RADIO, "--name", "bad", "--field", "position=none.csv"]) == 2
    assert cli.main(["import", "Grid101.mat", *RADIO, "--name", "bad", "--field", 'position="none.csv"']) == 2
    assert "--field position is no array: none.csv not found." in capsys.readouterr().err
    savemat("bad.mat", {"channel": channel[:, None], "place": np.ones((2, 3))})
    assert cli.main(["import", "bad.mat"]) == 2
    told = capsys.readouterr().err
    assert told == "bad.mat: just one field has to say what it holds, csi or delay; found: channel, place.\n"


def compound(array: np.ndarray) -> np.ndarray:
    """Complex numbers as MATLAB writes them to HDF5."""
    made = np.empty(array.shape, [("real", "f4"), ("imag", "f4")])
    made["real"], made["imag"] = array.real, array.imag
    return made

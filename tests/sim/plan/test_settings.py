"""What a user may choose, what they may get wrong, and that a run's record gives it back."""

import dataclasses
import tomllib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_world
import typer

import cli
from fronthaul.link.link_file import link_plan
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.plan import plan as compose
from sim.plan.options import command_line, folder_label, run_label, settings_of
from sim.plan.settings import EmulateSettings
from sim.plan.weights import load_weights
from sim.records.folder import RunFolder, read_configuration
from sim.toml.write import toml_text


def test_the_configuration_comes_back(settings: EmulateSettings) -> None:
    folder = emulate(settings).folder
    read = read_configuration(RunFolder(folder))
    assert read.settings == settings
    assert read.scenario == tiny_world.scenario()
    table = tomllib.loads((folder / "run.toml").read_text())
    assert table["environment"]["devices"] == {"edge": "cpu", "cloud": "cpu"}
    assert table["environment"]["threads"] == 1 and table["environment"]["packages"]["torch"]


def test_a_configuration_with_links_and_forwarding_comes_back(settings: EmulateSettings) -> None:
    links = link_plan({"default": {"rate": "10mbit", "loss": "1%"}, "bs": {"2": {"up": {"outage": "1s-2s"}}}})
    asked = dataclasses.replace(
        settings, bits=2, links=links, batch=4, bundle=3, window_ms=2.0, warmup=0, capture=False
    )
    read = read_configuration(RunFolder(emulate(asked).folder))
    assert read.settings == asked
    assert (read.format.width, read.answer_format) == (2, None)


def test_notes_name_what_the_weights_were_not_trained_for(settings: EmulateSettings) -> None:
    plan = compose.load_plan(settings)
    assert compose.weights_notes(plan) == []
    del plan.weights.config["made_for"]  # as in older files
    record = {"clock": {"ue_bias_ns": 50.0, "bs_sigma_ns": 0.0, "per_slot_phase": True}}
    plan.weights.config.update(record=record, bits=None)
    clock, payload = compose.weights_notes(plan)
    assert "other clock errors (ue_bias_ns = 50.0" in clock and "scenario's (ue_bias_ns = 0.0" in clock
    assert payload == "The weights were trained for lossless payloads, the run sends 4 bits."
    record["clock"] |= dataclasses.asdict(plan.scenario.clock)
    plan.weights.config["bits"] = 4
    assert compose.weights_notes(plan) == []
    plan.weights.config["record"] = "random"
    assert compose.weights_notes(plan) == []


@pytest.mark.parametrize("change", [{"tones": 16}, {"slots": 3}])
def test_weights_of_another_shape_are_one_sentence(settings: EmulateSettings, change: dict[str, int]) -> None:
    world = tiny_world.scenario()
    other = dataclasses.replace(world, numerology=dataclasses.replace(world.numerology, **change))
    assert settings.weights is not None
    with pytest.raises(UserError, match="do not fit scheme 'ecc' with 4 bits"):
        compose.compose(
            dataclasses.replace(settings, force=True), other, tiny_world.paths(world), load_weights(settings.weights)
        )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bits": 9}, r"--bits must lie in 1\.\.8"),
        ({"bits": 0}, r"--bits must lie in 1\.\.8"),
        ({"bs": 0}, "--bs must lie"),
        ({"bs": 4, "minimum_bs": 1}, "more than the 3 sites"),
        ({"minimum_bs": 4}, "--minimum-bs"),
        ({"interval_ms": -1.0}, "--interval"),
        ({"deadline_ms": 0.0}, "--deadline"),
        ({"deadline_ms": float("nan")}, "--deadline"),
        ({"interval_ms": 1e9}, "at most 3600000 ms"),
        ({"batch": 100}, "use a smaller batch"),
        ({"port": 70000, "driver": "ray"}, "--port"),
        ({"port": 4000}, "no meaning with --driver process"),
        ({"ray_address": "auto"}, "no meaning with --driver process"),
        ({"bundle": 2}, "--bundle 2 is more than --batch 1"),
        ({"bundle": 65, "batch": 100, "interval_ms": 1.0}, r"--bundle must lie in 1\.\.64"),
        ({"window_ms": 1000.0}, "--window 1000 ms must be before --deadline 1000 ms"),
        ({"interval_ms": 0.0, "deadline_ms": 5.0}, "--deadline has no effect with --interval 0"),
        ({"interval_ms": 0.0, "window_ms": 5.0}, "--window has no effect with --interval 0"),
        ({"restarts": -1}, "--restarts must lie"),
        ({"hwm": 0}, "--hwm must lie"),
        ({"forward": "iq16"}, "--forward iq16 is for --bits lossless"),
        ({"hwm": 5}, "--hwm has no meaning with --driver process"),
        ({"restarts": 0}, "--restarts has no meaning with --driver process"),
        ({"forward": "iq17", "bits": None}, "iq17"),
        ({"forward": "iq16", "bits": None, "scheme": "rss"}, "for schemes that send the channel itself, not 'rss'"),
        ({"curve": True}, "no meaning with --driver process"),
        ({"keys": Path("keys")}, "no meaning with --driver process"),
        ({"keys": Path("keys"), "curve": False}, "--keys encrypts the links, --plaintext does not"),
        ({"driver": "rai"}, "did you mean 'ray'"),
        ({"scheme": "nonsense"}, "There is no scheme 'nonsense'"),
        ({"scheme": "nonsense", "weights": None}, "There is no scheme 'nonsense'"),
        ({"scenario": "nonsense"}, "There is no scenario 'nonsense'"),
        ({"weights": Path("nowhere.safetensors")}, "weights nowhere.safetensors are missing"),
        ({"bits": 5}, "do not fit scheme 'ecc' with 5 bits"),
    ],
)
def test_bad_input_is_one_sentence(settings: EmulateSettings, change: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        emulate(dataclasses.replace(settings, **change))  # type: ignore[arg-type]
    assert not settings.output.exists()


def test_output_must_be_a_folder(settings: EmulateSettings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output"):
        emulate(dataclasses.replace(settings, output=tmp_path / "file"))


def test_paths_of_another_scenario_are_refused(settings: EmulateSettings) -> None:
    paths = dataclasses.replace(tiny_world.paths(tiny_world.scenario()), digest="another")
    paths.save(settings.output.parent / "assets" / "tiny" / "test.npz")
    with pytest.raises(UserError, match="another version"):
        emulate(settings)


def test_a_users_own_test_paths(settings: EmulateSettings, tmp_path: Path) -> None:
    own = tiny_world.paths(tiny_world.scenario()).select(np.arange(3, 8))
    own.save(tmp_path / "own.npz")
    folder = emulate(dataclasses.replace(settings, test=tmp_path / "own.npz")).folder
    rows = pq.read_table(folder / "fixes.parquet")
    assert rows["true_x_m"].to_pylist()[:5] == own.position[:, 0].tolist()
    assert rows["training_distance_m"].null_count == len(rows)
    assert read_configuration(RunFolder(folder)).settings.test == tmp_path / "own.npz"


def test_training_positions_are_those_beside_the_users_own_test_paths(
    settings: EmulateSettings, tmp_path: Path
) -> None:
    own = tiny_world.paths(tiny_world.scenario()).select(np.arange(3, 8))
    own.save(tmp_path / "test-block.npz")
    np.savez(tmp_path / "train-positions-block.npz", position=own.position + np.array([0.0, 3.0, 4.0]))
    result = emulate(dataclasses.replace(settings, test=tmp_path / "test-block.npz", controls=True))
    distance = pq.read_table(result.folder / "fixes.parquet")["training_distance_m"].to_numpy()
    assert distance.max() <= 5.0 + 1e-9 and distance.min() > 0
    assert "prior" in result.summary["controls"]


def test_toml_comes_back() -> None:
    table = {
        "text": 'quotes " and \\ and µ\n',
        "numbers": [1, 2.5, 1e-9],
        "yes": True,
        "rows": [{"a": 1, "b": [1.0, 2.0]}, {"a": 2}],
        "sub": {"x": 1, "empty": {}, "a key": {"y": "z"}},
    }
    assert tomllib.loads(toml_text(table | {"nothing": None})) == table
    with pytest.raises(TypeError, match="object"):
        toml_text({"a": object()})


def test_who_reserves_a_share_of_a_gpu_computes_on_it(settings: EmulateSettings) -> None:
    given = dataclasses.replace(settings, driver="ray", cloud_gpus=0.5)
    assert (given.edge_device, given.cloud_device) == ("cpu", "cuda:0")
    assert (dataclasses.replace(given, gpus_per_bs=0.1).edge_device, given.encrypted) == ("cuda:0", False)
    assert (settings.driver, settings.edge_device, settings.cloud_device) == ("process", "cpu", "cpu")


@pytest.mark.parametrize(
    "words",
    [
        "--bits lossless --interval 0 --no-capture --layout 2 --scenario paris-street-12 --scheme vinloc",
        "--bits bfp9 --loss 5% --delay 2ms --jitter 500us --jitter-shape pareto --rate 10mbit --queue 16kB",
        "--scheme twin --bits-per-report 64 --driver process --no-controls --shuffle-csi --deadline 12.5 --seed 9",
        "--scheme diffloc --steps 2 --where one-shot --bits 8 --bs 7 --curve --port 45671 --force --cpus-per-bs 0.125",
    ],
)
def test_settings_give_the_command_that_gives_them(words: str) -> None:
    def parsed(words: list[str]) -> EmulateSettings:
        command = typer.main.get_command(cli.app).commands["emulate"]  # type: ignore[attr-defined]
        return settings_of(command.make_context("emulate", list(words)).params)

    settings = parsed(words.split())
    assert parsed(command_line(settings)) == settings


def test_link_models_that_options_cannot_express_are_left_to_a_file() -> None:
    words = command_line(EmulateSettings(links=link_plan({"bs": {"1": {"loss": "1%"}}})), "own.toml")
    assert words[-2:] == ["--links", "own.toml"]
    assert command_line(EmulateSettings(links=link_plan({"default": {"burst": "1% 25%"}})))[-1] == "links.toml"


def test_bits_mean_what_the_scheme_says() -> None:
    assert settings_of({"scheme": "music"}).bits is None
    assert settings_of({"scheme": "mfcnet", "bits": "bfp9"}).forward == "bfp9"
    assert settings_of({"scheme": "vinloc"}).bits == 4
    with pytest.raises(UserError, match=r"--bits means nothing to scheme 'ecc-rd'.* give --bits-per-report"):
        settings_of({"scheme": "ecc-rd", "bits": "4"})


@pytest.mark.parametrize(
    ("words", "label", "folder"),
    [
        ({}, "ecc, B = 4", "ecc-b4"),
        ({"bits": "iq16"}, "ecc, iq16", "ecc-iq16"),
        ({"scheme": "twin"}, "twin", "twin"),
        ({"scheme": "twin", "bits_per_report": 64}, "twin, 64 bit a report", "twin-64bit"),
    ],
)
def test_runs_are_named_by_scheme_and_payload(words: dict[str, str | int], label: str, folder: str) -> None:
    settings = settings_of(words)
    assert (run_label(settings, dict(settings.options)), folder_label(settings)) == (label, folder)

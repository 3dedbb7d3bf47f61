"""`train vinloc`: jobs by name, variants beside their weights."""

import resource
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import straight_world
import tiny_hall
import torch

import cli
from sim.learn.splits import write_test_set
from sim.learn.vinloc import resnet_train
from sim.plan.weights import load_weights
from sim.toml.write import toml_text
from sim.world.scenario import scenario_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("train")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        _, resnets = tiny_hall.trainings(tiny_hall.write(made), patch)
        patch.setattr(resnet_train, "RESNET_JOBS", resnets)
        yield made
    torch.set_num_threads(threads)


def test_a_job_is_trained_where_tables_look_for_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "vinloc"]) == 0
    assert "mean 3D error on validation users" in capsys.readouterr().out
    assert (folder / "data/tiny-hall/vinloc/any.pt").is_file()
    weights = load_weights(folder / "checkpoints/tiny-hall/vinloc-any.safetensors")
    assert weights.config["record"]["job"] == "any"


def test_training_ends_with_the_command_that_uses_it(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is printed, but for a driver that suits a test."""
    world = straight_world.scenario()
    Path("straight.toml").write_text(toml_text(scenario_table(world)))
    paths = straight_world.trace(world, straight_world.positions(world, 60))
    paths.save(Path("data/straight/paths.npz"))
    write_test_set(world, paths, Path("data/straight"))
    of_straight = "--scenario straight.toml"
    for line in (
        "vinloc",
        f"rss {of_straight}",
        f"ecc {of_straight} --bits 2 --epochs 1 --batch 8 --output x.safetensors",
    ):
        assert cli.main(["train", *line.split()]) == 0
        command = capsys.readouterr().out.splitlines()[-1]
        assert command.startswith("python cli.py emulate --scenario ")
        short = ["--driver", "process", "--snapshots", "2", "--no-controls"]
        assert cli.main([*shlex.split(command)[2:], *short]) == 0
        capsys.readouterr()


def test_a_variant_has_its_checkpoint_beside_its_weights(folder: Path) -> None:
    before = (folder / "data/tiny-hall/vinloc/any.pt").stat()
    assert cli.main(["train", "vinloc", "--job", "any", "--epochs", "0.5", "--batch", "20", "--seed", "3"]) == 0
    made = folder / "checkpoints/tiny-hall"
    assert load_weights(made / "vinloc-any-seed3.safetensors").config["record"]["schedule"]["batch"] == 20
    assert (made / "vinloc-any-seed3.pt").is_file()
    assert (folder / "data/tiny-hall/vinloc/any.pt").stat().st_mtime_ns == before.st_mtime_ns


def test_fingerprinting_is_trained_without_weights_to_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "vinloc", "--job", "resnet-packed"]) == 0
    assert "data/tiny-hall/vinloc/resnet-packed.pt" in capsys.readouterr().out
    assert (folder / "data/tiny-hall/vinloc/resnet-packed.pt").is_file()


@pytest.mark.parametrize("job", ["any", "resnet-packed"])
def test_a_training_that_diverges_says_so_and_leaves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], job: str
) -> None:
    wild = ["--rate", "1e9", "--epochs", "3", "--output", "wild/x.safetensors"]
    assert cli.main(["train", "vinloc", "--job", job, *wild]) == 2
    assert "The training diverged before step 6: lower the learning rate.\n" in capsys.readouterr().err
    assert not (folder / "wild").exists()


def test_an_output_that_cannot_be_written_is_found_before_the_training(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "blocked").write_text("")
    for line in ("train vinloc --seed 9 --output blocked/x.safetensors", "reproduce vinloc-bits --output blocked"):
        assert cli.main(line.split()) == 2
        assert capsys.readouterr().err == "Cannot use blocked: File exists.\n"


@pytest.mark.parametrize(
    "line",
    [
        "train vinloc --seed 8 --output full/x.safetensors",
        "train vinloc --job resnet-packed --seed 8 --output full/x.safetensors",
        "reproduce ecc-strategies --no-train --output full",
        "trace inf-dh-18 --positions 3 --output full",
    ],
)
def test_a_full_disk_is_one_sentence(folder: Path, capfd: pytest.CaptureFixture[str], line: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))  # to a program that is what a full disk looks like
    try:
        assert cli.main(line.split()) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    told = capfd.readouterr().err
    assert "File too large." in told.splitlines()[-1] or "is the disk full?" in told.splitlines()[-1]
    assert "Traceback" not in told
    assert [path for path in (folder / "full").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("train vinloc --job blnd", "There is no VIn-Loc training 'blnd' (did you mean 'blind'?)"),
        ("train vinloc --epochs 0", "--epochs, --budget and --rate must be above 0"),
        ("train vinloc --scenario paris-6", "trace"),
        ("train vinlock", "There is no training for scheme 'vinlock' (did you mean 'vinloc'?)"),
        ("reproduce vinloc-tabel2", "There is no table 'vinloc-tabel2' (did you mean 'vinloc-table2'?)"),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str], line: str, sentence: str) -> None:
    assert cli.main(line.split()) == 2
    error = capsys.readouterr().err
    assert sentence in error and len(error.splitlines()) == 1

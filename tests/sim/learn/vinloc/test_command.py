"""`train vinloc`: jobs by name, variants beside their weights."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_hall
import torch

import cli
from sim.learn.vinloc import resnet_train
from sim.plan.weights import load_weights


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

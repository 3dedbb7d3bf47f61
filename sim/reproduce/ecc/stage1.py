"""``ecc-stage1``: what the autoencoders of Stage I reconstruct (the paper's Fig. 13): phases and ADCPM maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge.adcpm import angle_delay_power
from edge.encoder import cosine_loss
from edge.preprocessing import preprocess
from fronthaul.files import whole_file
from sim.learn.device import training_device
from sim.learn.ecc.model import EccModel, EccShape
from sim.learn.ecc.train import EccTraining, make_sources, stage_one
from sim.learn.trainer import Schedule
from sim.records.statistics import sample_statistics
from sim.reproduce import markdown
from sim.reproduce.bench import file_digest, require_traced
from sim.reproduce.ecc.runs import TRAINED
from sim.reproduce.markdown import NOT_TRAINED, Record, with_interval
from sim.reproduce.rows import Result, Row
from sim.world.paths import load_paths
from sim.world.scenario import Scenario, load_scenario
from sim.world.store import DATA_FOLDER

NAME = "autoencoders"
EPOCHS = 0.5
"""Passes over the training positions."""
_POSITIONS = 500


class AutoencoderBench:
    """The autoencoders of all base stations of paris-6, trained on unlabelled channels, in one file."""

    def __init__(self, folder: Path = TRAINED) -> None:
        """Keep them in `folder`."""
        self.file = folder / "stage-one.pt"

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario."""
        return load_scenario("paris-6")

    def require_data(self, names: Iterable[str]) -> None:
        """Require the path data.

        Raises:
            UserError: they are missing.
        """
        require_traced([("paris-6", self._paths, "paris-6")])

    def is_trained(self, name: str) -> bool:
        """Return whether the file exists."""
        return self.file.is_file()

    def train(self, name: str) -> None:
        """Train, unless already trained."""
        device = training_device()
        training = EccTraining(stage_one_epochs=EPOCHS, schedule=Schedule())
        sources = make_sources(self.scenario, load_paths(self._paths), "random", training.jitter_m, 0, device)
        model = self._model().to(device)
        made = stage_one(model, sources.training, training, lambda _: None, None)
        state = {"encoders": model.encoders.state_dict(), "decoders": made.decoders.state_dict(), "losses": made.losses}
        with whole_file(self.file) as temporary:
            torch.save(state, temporary)

    def identity(self, name: str, *, fitted: bool) -> str | None:
        """Return a digest of the autoencoders; None if not trained."""
        return file_digest(self.file).hex()[:16] if self.file.is_file() else None

    @cached_property
    def reconstructed(self) -> tuple[Tensor, Tensor, list[tuple[int, float]]]:
        """Inputs and reconstructions (N, K, 2, F, T·M) of validation positions, and Stage I's losses by step."""
        state = torch.load(self.file, map_location="cpu", weights_only=True)
        model = self._model()
        decoders = model.decoders()
        model.encoders.load_state_dict(state["encoders"])
        decoders.load_state_dict(state["decoders"])
        model.eval()
        decoders.eval()
        cpu = torch.device("cpu")
        source = make_sources(self.scenario, load_paths(self._paths), "random", 0.0, 0, cpu).validation
        source.reseed(1)
        x, _ = preprocess(source.batch(torch.arange(_POSITIONS)).channel, model.phase)
        with torch.inference_mode():
            pairs = zip(model.encoders, decoders, strict=True)
            made = torch.stack([decoder(encoder(x[:, k])) for k, (encoder, decoder) in enumerate(pairs)], 1)
        return x, made, state["losses"]

    @property
    def _paths(self) -> Path:
        return DATA_FOLDER / "paris-6" / "paths.npz"

    def _model(self) -> EccModel:
        torch.manual_seed(0)
        return EccModel(self.scenario, "slot", 4, EccShape())


def stage1_rows(bench: AutoencoderBench) -> list[Row]:
    """Make a row for each base station; the first holds what is drawn."""
    names = [site.name for site in bench.scenario.sites]
    return [Row(name, reconstruction, (NAME,), {"station": k, "drawn": k == 0}) for k, name in enumerate(names)]


def reconstruction(bench: AutoencoderBench, _: Sequence[str], *, station: int, drawn: bool) -> Result:
    """Measure loss, error of the phases and similarity of ADCPM maps on validation positions.

    ``beyond_best``: 1 + the loss of Eq. 22, 0 at best; ``phase_deg``: root mean square difference of the phases,
    weighted by the channel's power, after the one phase that Eq. 22 leaves free; ``map_cosine``: of the maps of channel
    and reconstruction; ``phases`` and ``maps``, if `drawn`: of the position with the median loss.
    """
    inputs, made, losses = bench.reconstructed
    x, y = inputs[:, station], made[:, station]
    h, g = _complex(x), _complex(y)
    product = (h.conj() * g).sum((1, 2), keepdim=True)
    g = g * (product.conj() / product.abs().clamp_min(1e-12))
    weight = h.abs().square()
    phase = torch.rad2deg((((h.conj() * g).angle().square() * weight).sum((1, 2)) / weight.sum((1, 2))).sqrt())
    maps = [_map(bench.scenario, one) for one in (h, g)]
    cosine = torch.nn.functional.cosine_similarity(maps[0].flatten(1), maps[1].flatten(1))
    loss = torch.stack([cosine_loss(x[n : n + 1], y[n : n + 1]) for n in range(len(x))])
    found: Result = {"losses": losses, "map_cosine": float(cosine.mean())}
    for name, values in (("beyond_best", 1 + loss), ("phase_deg", phase)):
        found[name] = sample_statistics(values.double().numpy())
    if drawn:
        shown = int(loss.argsort()[len(loss) // 2])
        found["phases"] = [torch.rad2deg(one[shown].angle()).round().int().tolist() for one in (h, g)]
        found["maps"] = [(one[shown] / one[shown].max()).numpy().round(3).tolist() for one in maps]
    return found


def _complex(x: Tensor) -> Tensor:
    """Return entries (N, F, T·M) of inputs (N, 2, F, T·M)."""
    return torch.complex(x[:, 0].float(), x[:, 1].float())


def _map(scenario: Scenario, h: Tensor) -> Tensor:
    """Return ADCPM maps (N, M, F) of entries (N, F, T·M)."""
    slots, antennas, _ = scenario.csi_shape
    channel = h.transpose(1, 2).unflatten(1, (slots, antennas))
    return angle_delay_power(channel, scenario.array.rows, scenario.array.columns)


def stage1_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw phases and maps of one channel and its reconstruction, and the loss of the training."""
    from matplotlib.figure import Figure

    from sim.drawing import tidy
    from sim.files import write_picture

    found: dict[str, Any] | None = records[0]["result"]
    figure = Figure(figsize=(12.0, 6.4), layout="constrained")
    panels = figure.subplots(2, 3)
    if found is not None:
        kinds = (
            ("phases", "phase [deg]", "twilight", "slot and antenna"),
            ("maps", "ADCPM, of its largest", "viridis", "delay"),
        )
        for row, (kind, label, colours, axis) in enumerate(kinds):
            for column, whose in enumerate(("estimated channel", "reconstruction")):
                axes = panels[row][column]
                low, high = (-180, 180) if kind == "phases" else (0, 1)
                image = axes.imshow(np.array(found[kind][column]), aspect="auto", cmap=colours, vmin=low, vmax=high)
                axes.set_title(f"{whose}, {records[0]['label']}", fontsize=9)
                axes.set_xlabel(axis)
                axes.set_ylabel("tone" if kind == "phases" else "beam")
                axes.yaxis.get_major_locator().set_params(integer=True)
                figure.colorbar(image, ax=axes, label=label)
        step, loss = zip(*found["losses"], strict=True)
        panels[0][2].plot(step, [1 + value for value in loss], marker="o", markersize=3)
        panels[0][2].set_xlabel("steps of 128 snapshots")
        panels[0][2].set_ylabel("1 + loss of Eq. 22, six base stations")
        tidy(panels[0][2], logarithmic=True, from_zero=False)
        difference = np.array(found["phases"][1]) - np.array(found["phases"][0])
        difference = (difference.ravel() + 180) % 360 - 180
        edges = np.arange(np.floor(difference.min()) - 0.5, difference.max() + 1)  # phases are stored in whole degrees
        panels[1][2].hist(difference, bins=edges)
        panels[1][2].set_xlabel("difference of the phases drawn [deg]")
        panels[1][2].set_ylabel("entries")
    write_picture(figure, path)


def stage1_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    text = [
        *markdown.picture(name),
        f"Autoencoders of Stage I after {EPOCHS:g} epoch, on {_POSITIONS} validation positions; the latent is not",
        "quantised. The paper shows that phases match closely and that the maps keep their dominant",
        "peaks; it prints no figures. *Phase*: root mean square difference, weighted by power. Drawn is the",
        "position with the median loss.",
        "",
    ]
    lines = []
    for record in records:
        found = record["result"]
        cells = [NOT_TRAINED]
        if found is not None:
            loss = with_interval(found["beyond_best"], show=lambda value: f"{value:.4f}")
            phase = with_interval(found["phase_deg"], show=lambda value: f"{value:.1f}")
            cells = [loss, phase, f"{found['map_cosine']:.4f}"]
        lines.append([record["label"], *cells])
    head = ["base station", "1 + loss of Eq. 22 (95 %)", "phase [deg] (95 %)", "cosine of the ADCPM maps"]
    return markdown.page(name, [*text, *markdown.table(head, lines)], records)

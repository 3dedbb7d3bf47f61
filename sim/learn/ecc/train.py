"""Training of ECC: Stage I per base station without labels, Stage II end to end through the quantiser. ECC Sec. III-C.

::

    paths.npz ─ split ─ fresh snapshots ─ Stage I: autoencoders (Eq. 22) ─ Stage II: positions (Eq. 34, STE Eq. 35)
                                          skipped when starting from       ─ steps for every B ─ weights file
                                          weights of another B
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edge.encoder import cosine_loss
from edge.preprocessing import Phase, preprocess
from sim.errors import UserError
from sim.learn.data import SnapshotSource, measure_covariance
from sim.learn.device import training_device
from sim.learn.ecc.model import EccModel, EccShape, calibrated_steps
from sim.learn.optimizer import MatrixOptimizer
from sim.learn.splits import SplitName, split_positions
from sim.learn.trainer import OnProgress, Schedule, Trainer, TrainProgress
from sim.plan.weights import Weights, load_weights, save_weights
from sim.world.channel import PATH_LIMIT, pad_paths
from sim.world.paths import PathSet
from sim.world.scenario import Scenario, scenario_table

_CALIBRATION_SEED, _GAIN_SEED = 30_000, 40_000

JITTER_M = 0.75
"""Half width of the uniform step of a training position along each axis [m]; needs paths with mirrors."""
Curve = list[tuple[int, float]]
"""Values by step."""


@dataclass(frozen=True)
class EccTraining:
    """Settings of one training: variant, split, initial weights and schedule.

    `frozen`: Stage II leaves the encoders as Stage I made them (the paper's split training, ECC Sec. IV-D).
    """

    bits: int | None = 4
    phase: Phase = "slot"
    split: SplitName = "random"
    jitter_m: float = JITTER_M
    stage_one_epochs: float = 0.25
    start_from: Path | None = None
    frozen: bool = False
    shape: EccShape = field(default_factory=EccShape)
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def snapshots(self) -> tuple[object, ...]:
        """Everything but a seed that the snapshots of a training depend on."""
        own = self.schedule
        length = (own.epochs, own.budget_s, own.batch)
        return (self.split, self.jitter_m, own.station_dropout, *length)


@dataclass(frozen=True)
class Sources:
    """Training and validation snapshots of one split, and the spatial covariance that LMMSE uses."""

    training: SnapshotSource
    validation: SnapshotSource
    covariance: Tensor

    def like(self, scenario: Scenario, paths: PathSet) -> SnapshotSource:
        """Make a source of snapshots at other positions, without displacement, estimated with the same covariance."""
        padded = pad_paths(paths, scenario.numerology.carrier_hz)
        return SnapshotSource(
            scenario, padded, paths.position, self.covariance, seed=20_000, device=self.training.device
        )


def make_sources(
    scenario: Scenario, paths: PathSet, split: SplitName, jitter_m: float, seed: int, device: torch.device
) -> Sources:
    """Split a traced data set and prepare its snapshot sources."""
    if len(paths) < 10:
        raise UserError(f"{len(paths)} positions are too few to train on; trace more.")
    parts = split_positions(scenario, paths.position, split)
    carrier = scenario.numerology.carrier_hz
    training = pad_paths(paths.select(parts.train), carrier, PATH_LIMIT, mirrors=jitter_m > 0)
    validation = pad_paths(paths.select(parts.validation), carrier)
    covariance = measure_covariance(scenario, training)

    def source(of: Any, index: npt.NDArray[np.int64], jitter: float, key: int) -> SnapshotSource:
        return SnapshotSource(scenario, of, paths.position[index], covariance, jitter_m=jitter, seed=key, device=device)

    return Sources(
        source(training, parts.train, jitter_m, seed), source(validation, parts.validation, 0.0, 10_000), covariance
    )


def train_ecc(
    scenario: Scenario,
    paths: PathSet,
    trainings: Mapping[Path, EccTraining],
    on_progress: OnProgress,
    *,
    checkpoint: Path | None = None,
    scalars: Any = None,
    device: torch.device | None = None,
) -> dict[Path, float]:
    """Train variants on the same snapshots and write their weights files; return mean 3D validation errors [m].

    An interrupted training resumes from `checkpoint` (Stage II only); the weights files are written at the end.

    Args:
        scenario: scenario of the paths.
        paths: traced training positions.
        trainings: variants by weights file; they may differ in everything that leaves the snapshots alone. These are
            drawn with the first one's seed.
        on_progress: called with the progress; its `name` is the stem of the weights file if there are several.
        checkpoint: file to resume from.
        scalars: a TensorBoard SummaryWriter, or None.
        device: default: a CUDA device if there is one.

    Raises:
        ValueError: variants that need different snapshots.
    """
    device = device or training_device()
    if len({training.snapshots for training in trainings.values()}) != 1:
        raise ValueError("trainings on the same snapshots need equal splits, movements, dropouts, batches and lengths")
    first = next(iter(trainings.values()))
    names = {output: output.stem if len(trainings) > 1 else "" for output in trainings}
    identity = {
        "training": str([asdict(training) for training in trainings.values()]),
        "scenario": str(scenario_table(scenario)),
        "positions": len(paths),
    }
    sources = make_sources(scenario, paths, first.split, first.jitter_m, first.schedule.seed, device)
    models = {names[output]: _model(scenario, training, device) for output, training in trainings.items()}
    reconstruction: dict[str, Curve] = {}
    if checkpoint is None or not checkpoint.is_file():
        reconstruction = _initialise(models, list(trainings.values()), sources.training, on_progress, scalars)
    for model, training in zip(models.values(), trainings.values(), strict=True):
        if training.frozen:
            model.freeze_encoders()
    validation: dict[str, Curve] = {name: [] for name in models}

    def tell(progress: TrainProgress) -> None:
        if progress.validation_m is not None:
            validation[progress.name].append((progress.step, round(progress.validation_m, 4)))
        on_progress(progress)

    trainer = Trainer(
        models,
        sources.training,
        sources.validation,
        {names[output]: training.schedule for output, training in trainings.items()},
        checkpoint=checkpoint,
        identity=identity,
        scalars=scalars,
    )
    found = trainer.run(tell)
    for output, training in trainings.items():
        name = names[output]
        curves = {"stage_one_loss": reconstruction.get(name, []), "validation_m": validation[name]}
        _export(models[name], training, sources, found[name], curves, output)
    return {output: found[name] for output, name in names.items()}


def _model(scenario: Scenario, training: EccTraining, device: torch.device) -> EccModel:
    torch.manual_seed(training.schedule.seed)
    model = EccModel(scenario, training.phase, training.bits, training.shape).to(device)
    model.fusion_in_single = training.schedule.half != "all"
    return model


def _initialise(
    models: Mapping[str, EccModel],
    trainings: Sequence[EccTraining],
    source: SnapshotSource,
    on_progress: OnProgress,
    scalars: Any,
) -> dict[str, Curve]:
    """Start each model from its weights, or by Stage I: once for all models with the same encoders and inputs.

    Returns:
        The losses of Stage I, by the models' names.
    """
    trained: dict[str, str] = {}
    losses: dict[str, Curve] = {}
    for (name, model), training in zip(models.items(), trainings, strict=True):
        if training.start_from is not None:
            start_from_weights(model, load_weights(training.start_from))
            continue
        mean, deviation = measure_gains(source)
        model.fusion.gain_mean.copy_(mean)
        model.fusion.gain_deviation.copy_(deviation)
        if training.bits is not None and training.stage_one_epochs > 0:
            what = str((training.phase, training.stage_one_epochs, model.encoder_shape, training.schedule.seed))
            if what in trained:
                model.encoders.load_state_dict(models[trained[what]].encoders.state_dict())
                losses[name] = losses[trained[what]]
            else:
                losses[name] = stage_one(model, source, training, on_progress, scalars).losses
                trained[what] = name
    return losses


def _export(
    model: EccModel, training: EccTraining, sources: Sources, error: float, curves: dict[str, Curve], output: Path
) -> None:
    """Write the weights file."""
    steps = _steps_for_all_bits(model, sources.training) if training.bits is not None else {}
    record = {
        "validation_mean_3d_m": round(error, 4),
        "positions": len(sources.training),
        "split": training.split,
        "jitter_m": training.jitter_m,
        "clock": asdict(model.scenario.clock),
        "started_from": training.start_from.name if training.start_from else None,
        "schedule": asdict(training.schedule),
        "stage_one_epochs": 0.0 if training.start_from else training.stage_one_epochs,
        "frozen": training.frozen,
        "curves": curves,
        "torch": str(torch.__version__),
        "device": sources.training.device.type,
    }
    save_weights(output, model.cpu().weights(sources.covariance.cpu(), steps, record))


@dataclass(frozen=True)
class StageOne:
    """What Stage I leaves beside the trained encoders: decoders of each base station, and mean losses by step."""

    decoders: nn.ModuleList
    losses: Curve


def stage_one(
    model: EccModel, source: SnapshotSource, training: EccTraining, on_progress: OnProgress, scalars: Any
) -> StageOne:
    """Train every base station's autoencoder on its own unlabelled channels; Stage II has no use for the decoders.

    Base stations share only the loop: their losses are summed, but their parameters are disjoint. In the first pass
    over the positions every snapshot is new, so that the losses are those of channels never trained on.
    """
    torch.manual_seed(training.schedule.seed)  # whatever other variants drew before
    decoders = model.decoders().to(source.device)
    optimizer = MatrixOptimizer(nn.ModuleList([model.encoders, decoders]), matrices=training.schedule.matrices)
    batch = training.schedule.batch
    steps = max(1, round(training.stage_one_epochs * len(source) / batch))
    source.reseed(training.schedule.seed, 1_000_000)
    model.train()
    losses: Curve = []
    step = 0
    while step < steps:
        for index in source.permutation().split(batch):
            if step >= steps:
                break
            x, _ = preprocess(source.batch(index).channel, model.phase)
            with torch.autocast(x.device.type, torch.bfloat16, enabled=training.schedule.half != "none"):
                made = [d(e(x[:, k])) for k, (e, d) in enumerate(zip(model.encoders, decoders, strict=True))]
            loss = torch.stack([cosine_loss(x[:, k], made[k]) for k in range(len(made))]).sum()
            optimizer.descend(loss, training.schedule.rate * min(1.0, (step + 1) / 50) * (1 - step / steps))
            step += 1
            mean = float(loss.detach()) / len(made)
            if step % 20 == 0 or step == steps:
                losses.append((step, round(mean, 5)))
                on_progress(TrainProgress("local", step, steps, mean, 0.0))
            if scalars:
                scalars.add_scalar("loss/stage_one", mean, step)
    return StageOne(decoders, losses)


def start_from_weights(model: EccModel, weights: Weights) -> None:
    """Load networks of the same shape that were trained for another payload (or other clock errors).

    Raises:
        UserError: the weights have another shape or preprocessing.
    """
    if weights.config["phase"] != model.phase:
        raise UserError(f"The starting weights use phase {weights.config['phase']!r}, this training {model.phase!r}.")
    try:
        for k, encoder in enumerate(model.encoders):
            share = weights.edge(k)
            own = {n.removeprefix("encoder."): v.float() for n, v in share.items() if n.startswith("encoder.")}
            encoder.load_state_dict(own)
        cloud = {n.removeprefix("fusion."): v.float() for n, v in weights.cloud().items() if n.startswith("fusion.")}
        model.fusion.load_state_dict(cloud)
    except RuntimeError as error:
        raise UserError(f"The starting weights do not fit this network: {str(error).splitlines()[0]}") from error


def model_of(scenario: Scenario, weights: Weights) -> EccModel:
    """Return the network of a weights file, with its steps for the B that it was trained for."""
    config = weights.config
    encoder, fusion = config["encoder"], config["fusion"]
    shape = EccShape(
        coefficients=encoder["coefficients"],
        encoder_width=encoder["width"],
        encoder_depth=encoder["depth"],
        fusion_width=fusion["width"],
        hidden=fusion["hidden"],
        readout=fusion.get("readout", 1),
        tone_mixing=encoder.get("tone_mixing", True),
        temperature=fusion.get("temperature", 1.0),
        gain_mask=fusion.get("gain_mask", True),
    )
    model = EccModel(scenario, config["phase"], config["bits"], shape)
    start_from_weights(model, weights)
    for k in range(len(model.encoders)):
        model.step[k] = weights.edge(k)[f"step.{model.bits}"]
    return model


@torch.no_grad()
def intermediate_positions(scenario: Scenario, paths: PathSet, weights: Weights) -> npt.NDArray[np.float64]:
    """Return the LSTM's positions (N, F, 3) [m] after each token (ECC Eq. 33) at the positions of `paths`."""
    model = model_of(scenario, weights).eval()
    stacked = [torch.view_as_complex(weights.edge(k)["covariance"].float()) for k in range(len(scenario.sites))]
    padded = pad_paths(paths, scenario.numerology.carrier_hz)
    source = SnapshotSource(scenario, padded, paths.position, torch.stack(stacked))
    source.reseed(_CALIBRATION_SEED)
    found = []
    for index in torch.arange(len(source)).split(500):
        x, gain = preprocess(source.batch(index).channel, model.phase)
        found.append(model(x, gain, torch.ones(gain.shape, dtype=torch.bool)))
    return torch.cat(found).double().numpy()


@torch.no_grad()
def measure_gains(source: SnapshotSource) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (K,) of the log-gains [dB] over positions, to standardise them with."""
    source.reseed(_GAIN_SEED)
    made = source.batch(torch.arange(min(4000, len(source))))
    _, gain = preprocess(made.channel, "none")
    level = 20 * torch.log10(gain.clamp_min(1e-12))
    return level.mean(0), level.std(0).clamp_min(1e-3)


@torch.no_grad()
def _steps_for_all_bits(model: EccModel, source: SnapshotSource) -> dict[int, Tensor]:
    """Return steps for B = 1 … 8: those of the trained B unchanged, the others calibrated on training latents."""
    model.eval()
    source.reseed(_CALIBRATION_SEED)
    latents = []
    for index in torch.arange(min(2000, len(source))).split(500):
        x, _ = preprocess(source.batch(index).channel, model.phase)
        latents.append(model.latent(x).float())
    steps = calibrated_steps(torch.cat(latents), range(1, 9))
    assert model.bits is not None
    steps[model.bits] = model.step
    return {bits: step.cpu().clone() for bits, step in steps.items()}

"""`emulate`: the main job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sim.commands import options
from sim.commands.common import console, parse_payload, stoppable

if TYPE_CHECKING:
    from fronthaul.link.link_file import LinkPlan


def emulate(
    scenario: options.Scenario = None,
    scheme: options.Scheme = "ecc",
    bs: options.Stations = None,
    random_subset: options.RandomSubset = False,
    layout: options.Layout = None,
    bits: options.Bits = "4",
    forward: options.Forward = "complex64",
    snapshots: options.Snapshots = 1000,
    seed: options.Seed = 1,
    steps: options.Steps = None,
    fusion: options.FusionRule = None,
    where: options.Where = None,
    option: options.Option = None,
    shuffle_csi: options.ShuffleCsi = False,
    weights: options.Weights = None,
    test: options.Test = None,
    interval: options.OwnInterval = None,
    deadline: options.Deadline = 1000.0,
    window: options.Window = 0.0,
    round_: options.Round = 0.0,
    minimum_bs: options.MinimumBs = 1,
    warmup: options.Warmup = 20,
    batch: options.Batch = 1,
    bundle: options.Bundle = 1,
    links: options.LinkFile = None,
    rate: options.Rate = None,
    delay: options.Delay = None,
    jitter: options.Jitter = None,
    jitter_shape: options.JitterShape = None,
    loss: options.Loss = None,
    burst: options.Burst = None,
    duplicate: options.Duplicate = None,
    reorder: options.Reorder = None,
    corrupt: options.Corrupt = None,
    outage: options.Outage = None,
    queue: options.Queue = None,
    hwm: options.Hwm = 1000,
    netns: options.Netns = False,
    curve: options.Curve = None,
    keys: options.Keys = None,
    ping: options.Ping = 1000.0,
    restarts: options.Restarts = 3,
    driver: options.DriverOption = "ray",
    ray_address: options.RayAddress = None,
    host: options.Host = None,
    port: options.Port = 0,
    bs_per_actor: options.BsPerActor = None,
    cpus_per_bs: options.OwnCpusPerBs = None,
    gpus_per_bs: options.GpusPerBs = 0.0,
    cloud_cpus: options.CloudCpus = 0.5,
    cloud_gpus: options.CloudGpus = 0.0,
    controls: options.Controls = True,
    capture: options.Capture = True,
    output: options.Output = Path("runs"),
    as_json: options.AsJson = False,
) -> None:
    """Run base stations, fronthaul and cloud; report position error, bits and latency."""
    resolution, forwarded = parse_payload(bits, forward)
    plan = options.links_with(
        options.link_file_plan(links),
        {
            "rate": rate,
            "delay": delay,
            "jitter": jitter,
            "jitter_shape": jitter_shape,
            "loss": loss,
            "burst": burst,
            "duplicate": duplicate,
            "reorder": reorder,
            "corrupt": corrupt,
            "outage": outage,
            "queue": queue,
        },
    )
    chosen = options.scheme_options(steps, fusion, where, option)
    scenario = options.scenario_of(scenario, scheme)
    bs = options.stations_of(bs, scenario, random_subset=random_subset)
    stations = options.stations_of(None, scenario) if random_subset else bs
    require_stations(plan, stations)
    local = ray_address in (None, "local")
    per_actor, cpus = options.places_of(
        bs_per_actor, cpus_per_bs, stations=stations, cloud_cpus=cloud_cpus, local=local and driver == "ray"
    )
    from sim.plan.settings import EmulateSettings

    settings = EmulateSettings(
        scenario=scenario,
        scheme=scheme,
        bs=bs,
        random_subset=random_subset,
        layout=layout,
        bits=resolution,
        forward=forwarded,
        snapshots=snapshots,
        seed=seed,
        driver=driver,  # type: ignore[arg-type]  # checked by EmulateSettings
        interval_ms=options.interval_of(interval, scheme),
        deadline_ms=deadline,
        window_ms=window,
        round_ms=round_,
        minimum_bs=minimum_bs,
        bundle=bundle,
        links=plan,
        batch=batch,
        bs_per_actor=per_actor,
        cpus_per_bs=cpus,
        gpus_per_bs=gpus_per_bs,
        cloud_cpus=cloud_cpus,
        cloud_gpus=cloud_gpus,
        ray_address=ray_address,
        host=host,
        port=port,
        curve=curve,
        keys=keys,
        hwm=hwm,
        ping_ms=ping,
        restarts=restarts,
        capture=capture,
        netns=netns,
        warmup=warmup,
        weights=weights,
        test=test,
        output=output,
        shuffle_csi=shuffle_csi,
        controls=controls,
        options=chosen,
    )
    from sim.commands.summary import show_summary
    from sim.emulate.emulator import Progress as RunProgress
    from sim.emulate.emulator import emulate as run
    from sim.terminal import ProgressBar

    stages = {"start": "starting", "run": "positioning", "write": "writing"}
    before = parts_of_runs(output)
    with stoppable(lambda: stopped_run(parts_of_runs(output) - before)), ProgressBar() as bar:

        def advance(progress: RunProgress) -> None:
            bar.update(stages[progress.stage], progress.done, progress.total)

        result = run(settings, advance)
    if as_json:
        print(json.dumps(result.summary, indent=2))
        return
    show_summary(console(), result.summary, result.folder)


def require_stations(plan: LinkPlan, bs: int) -> None:
    """Check that a link file names links of the run alone.

    Raises:
        UserError: it names another base station.
    """
    from sim.errors import UserError

    strange = sorted({number for number, _ in plan.layers if number is not None and number >= bs})
    if strange:
        raise UserError(f"--links has a table for BS {strange[0]}, but base stations are 0 to {bs - 1}.")


def parts_of_runs(output: Path) -> set[Path]:
    """Return folders of runs that are going on or were cut."""
    return set(output.glob("*.part"))


def stopped_run(parts: set[Path]) -> str:
    """Say what a run that was stopped has left in `parts`."""
    if not parts:
        return "Stopped before anything was sent; nothing is on disk."
    return f"Stopped; every frame sent until then is journaled in {', '.join(sorted(map(str, parts)))}."

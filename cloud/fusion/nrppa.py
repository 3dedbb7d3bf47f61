"""Fusion of NRPPa's reports, `nrppa-path` and `nrppa-sample`: what a report says of paths, to either fusion rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from cloud.fusion.lateration import LaterationFusion
from cloud.fusion.learned_paths import LearnedFusion
from cloud.fusion.sampled_profile import ProfileReader
from cloud.fusion.scheme import CloudSetup, OneRoundFusion
from fronthaul.message.messages import Payload
from fronthaul.payload.measurements import Path
from fronthaul.payload.nrppa_path import NrppaPathPayload, PathChoice
from fronthaul.payload.nrppa_sample import NrppaSamplePayload, SampleChoice

Read = Callable[[Payload], list[Path]]


def build_path(setup: CloudSetup) -> OneRoundFusion:
    """Build the rule for reports of `nrppa-path`, whose further paths may be the line of sight, too, if so chosen.

    Raises:
        ValueError: an option is out of range.
    """
    choice = PathChoice.of(setup.options)
    read = NrppaPathPayload(choice).decode
    return LaterationFusion(setup, lambda payload: read(payload)[: None if choice.candidates else 1], clock=False)


def build_path_learned(setup: CloudSetup) -> OneRoundFusion:
    """Build the learned rule for reports of `nrppa-path`.

    Raises:
        ValueError: an option is out of range, or the network was not trained for such reports.
    """
    choice = PathChoice.of(setup.options)
    return LearnedFusion(setup, "path", NrppaPathPayload(choice).decode, asdict(choice))


def build_sample(setup: CloudSetup) -> OneRoundFusion:
    """Build the rule for reports of `nrppa-sample`.

    Raises:
        ValueError: an option is out of range.
    """
    read = sampled_paths(SampleChoice.of(setup.options), setup.config)
    return LaterationFusion(setup, lambda payload: read(payload)[:1], clock=False)


def build_sample_learned(setup: CloudSetup) -> OneRoundFusion:
    """Build the learned rule for reports of `nrppa-sample`.

    Raises:
        ValueError: an option is out of range, or the network was not trained for such reports.
    """
    choice = SampleChoice.of(setup.options)
    if choice.phases and not setup.config["networks"]["sample"].get("phases"):
        raise ValueError("the network was trained without phases")
    return LearnedFusion(setup, "sample", sampled_paths(choice, setup.config), asdict(choice))


def sampled_paths(choice: SampleChoice, config: Mapping[str, Any]) -> Read:
    """Return a reader of `nrppa-sample`: the first path, with its direction if reported, and behind it the samples."""
    payload = NrppaSamplePayload(choice)
    profile = ProfileReader(int(config["tones"]), float(config["tone_spacing_hz"]), payload.start.step)

    def read(report: Payload) -> list[Path]:
        sampled = payload.decode(report)
        delay_s, deviation_s = profile.first(sampled.start_s, sampled.index, sampled.power_dbm)
        first = replace(sampled.first, delay_s=delay_s, delay_sd_s=deviation_s, power_dbm=max(sampled.power_dbm))
        return [first, *payload.paths(sampled)]

    return read

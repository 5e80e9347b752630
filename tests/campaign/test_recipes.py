"""Every kind of network that a campaign may train is one that ``fer.train`` takes."""

import pytest
import torch
from conftest import settings_of_first_job

from fer.campaign.recipes import SMALL, STUDENT, rosters
from fer.models import create

LISTS = {
    "gpu": rosters(on_gpu=True, slots=3),
    "cpu": rosters(on_gpu=False, slots=16, first_teacher="tiny"),
    "cpu without bfloat16": rosters(on_gpu=False, slots=2, bf16=False),
}


@pytest.mark.parametrize("name", LISTS)
def test_every_kind_composes_and_takes_faces(name):
    ends = (LISTS[name][0], LISTS[name][-1])  # rosters between them differ in width and number alone
    every = [kind for roster in ends for kind in (*roster.members, roster.small, roster.student)]
    kinds = {(kind.name == SMALL, kind.overrides): kind for kind in every}
    for kind in kinds.values():
        settings = settings_of_first_job([*kind.overrides, f"seed={kind.seed}", "distill.teachers=[tiny]"])
        if name == "cpu without bfloat16":
            assert settings.trainer.precision == 32
            assert not settings.optimizer.get("bf16")
        with torch.device("meta"):
            network = create(
                settings.model, classes=list("abcdefg"), image_size=48, crop=settings.data.crop, mean=0.5, std=0.25
            )
        parameters = sum(parameter.numel() for parameter in network.parameters())
        assert parameters < 500_000 or kind.name != SMALL


@pytest.mark.parametrize("name", LISTS)
def test_names_and_seeds_are_the_roster_s_own(name):
    for roster in LISTS[name]:
        names = [kind.name for kind in roster.members]
        assert len(set(names)) == len(names)
        assert len(names) >= 2 or roster.first_teacher  # which teaches in their place
        assert len({(kind.overrides, kind.seed) for kind in roster.members}) == len(names)
        assert {kind.probe for kind in roster.members} <= {STUDENT, *names}


def test_the_most_ambitious_comes_first():
    counts = [len(roster.members) for roster in LISTS["gpu"]]
    assert counts == sorted(counts, reverse=True)
    widths = [roster.width for roster in LISTS["cpu"]]
    assert widths == sorted(widths, reverse=True)

"""Searches with a whitened set: by its images as they were before, unless told otherwise."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import atom_nas
from atom_nas.resuming import search_settings
from atom_nas.run_folder import read_record
from atom_nas.search import run_search
from atom_nas.search_plan import prepare
from atom_nas.settings import SearchSettings
from distill import DistillSettings, distill
from distill.preprocessing import Whitening
from reports import write_report


def drawn_to(out: Path, *, zca: bool) -> Path:
    """Two real digits a class."""
    distill(DistillSettings(dataset="digits", method="random", ipc=2, zca=zca, out=out))
    return out


@pytest.fixture
def settings(quick: SearchSettings, tmp_path: Path) -> SearchSettings:
    return replace(quick, synthetic=drawn_to(tmp_path / "whitened", zca=True), reference="none")


def test_images_are_those_of_the_set_without_whitening(settings: SearchSettings, tmp_path: Path) -> None:
    plain = prepare(replace(settings, synthetic=drawn_to(tmp_path / "plain", zca=False))).data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = prepare(settings).data
    assert torch.allclose(data.synthetic_images, plain.synthetic_images, atol=1e-3)
    assert data.preprocessing.whitening is None
    assert torch.equal(data.preprocessing(data.test.images), plain.preprocessing(plain.test.images))
    with pytest.warns(UserWarning, match="is whitened"):
        kept = prepare(replace(settings, unwhiten=False)).data
    assert kept.preprocessing.whitening is not None
    assert not torch.allclose(kept.synthetic_images, plain.synthetic_images, atol=0.1)


@pytest.mark.usefixtures("ran")
def test_the_run_says_so_and_its_networks_go_by_it(settings: SearchSettings) -> None:
    run_search(replace(settings, confirm=1, confirm_epochs=1, confirm_images=50))
    assert read_record(settings.out)["synthetic"]["unwhitened"] is True
    text = write_report(settings.out).page.with_name("report.md").read_text(encoding="utf-8")
    assert "2 a class, whitening undone" in text
    for weights in (True, False):
        assert atom_nas.load_architecture(settings.out, weights=weights).preprocessing.whitening is None


@pytest.mark.usefixtures("ran")
def test_a_run_from_before_there_was_the_choice_stays_whitened(settings: SearchSettings) -> None:
    with pytest.warns(UserWarning, match="is whitened"):
        run_search(replace(settings, unwhiten=False))
    record = read_record(settings.out)
    text = write_report(settings.out).page.with_name("report.md").read_text(encoding="utf-8")
    assert "2 a class, whitened" in text
    del record["settings"]["unwhiten"]
    assert record["synthetic"].pop("unwhitened") is False
    (settings.out / "run.json").write_text(json.dumps(record))
    given = {"synthetic": settings.synthetic, "out": settings.out, "command": "", "space": settings.space}
    later = search_settings({"samples"}, **given, samples=5, unwhiten=True, resume=True)
    assert (later.unwhiten, later.samples) == (False, 5)
    with pytest.warns(UserWarning, match="is whitened"):
        assert run_search(later).proposed == 5
    wrong = r"cannot be resumed .*: its whitened set was trained on by --no-unwhiten \(unwhiten=False\); "
    with pytest.raises(ValueError, match=wrong):
        run_search(replace(later, unwhiten=True))
    loaded = atom_nas.load_architecture(settings.out, weights=False)
    assert isinstance(loaded.preprocessing.whitening, Whitening)

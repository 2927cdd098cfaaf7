"""Folders of images that are nearly laid out as wanted: what is left out is said."""

import shutil

import pytest
from PIL import Image

from distill.sources import load_dataset


def test_a_class_that_is_called_like_a_split_is_told_of(tmp_path, caplog):
    for name in ("train/cat", "train/dog", "bus", "ship", "notes"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(3 if name != "notes" else 0):
            Image.new("RGB", (8, 8), (90 * number, 0, 0)).save(tmp_path / name / f"{number}.png")
    assert load_dataset(f"folder:{tmp_path}").classes == ("cat", "dog")
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith("left out: 'bus', 'ship', since train/ beside it is taken for the training split")
    shutil.rmtree(tmp_path / "train" / "cat")
    with pytest.raises(ValueError, match=r"only the class 'dog'.*; if train/ is itself a class and no split"):
        load_dataset(f"folder:{tmp_path}")

"""Datasets from files in the formats that users and torchvision have them in."""

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision import datasets

from distill.sources import load_dataset

RANDOM = np.random.default_rng(0)


def picture(path: Path, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(RANDOM.integers(0, 256, shape, dtype=np.uint8), mode).save(path)


def folder(root: Path, *parts: str, count: int = 3, mode: str = "RGB", classes=("cat", "dog")) -> Path:
    for part in parts or ("",):
        for name in classes:
            for i in range(count):
                picture(root / part / name / f"{i}.png", mode=mode)
    return root


def test_digits():
    data = load_dataset("digits")
    assert data.image_shape == (1, 8, 8)
    assert (len(data.train), len(data.test)) == (1347, 450)
    assert int(data.train.images.max()) == 255
    assert load_dataset("digits").fingerprint == data.fingerprint


def test_folder_with_train_and_test(tmp_path):
    root = folder(tmp_path, "train", "test", "val")
    data = load_dataset(f"folder:{root}")
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (6, 6)
    first = np.asarray(Image.open(root / "train" / "cat" / "0.png")).transpose(2, 0, 1)
    assert np.array_equal(data.train.images[0].numpy(), first)
    tested = np.asarray(Image.open(root / "test" / "dog" / "2.png")).transpose(2, 0, 1)
    assert np.array_equal(data.test.images[-1].numpy(), tested)


def test_folder_with_val_only(tmp_path):
    data = load_dataset(f"folder:{folder(tmp_path, 'train', 'val')}")
    assert len(data.test) == 6


@pytest.mark.parametrize(
    ("training", "tested"),
    [("Train", "Test"), ("training", "testing"), ("TRAIN", "valid"), ("train", "Validation")],
)
def test_splits_may_be_called_by_their_usual_names(tmp_path, training, tested):
    root = folder(tmp_path, training, tested)
    data = load_dataset(f"folder:{root}")
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (6, 6)
    last = np.asarray(Image.open(root / tested / "dog" / "2.png")).transpose(2, 0, 1)
    assert np.array_equal(data.test.images[-1].numpy(), last)


def test_test_comes_before_val_in_any_spelling(tmp_path):
    root = folder(tmp_path, "train", "val", "valid")
    with pytest.raises(ValueError, match="val and valid, which could each be the val split"):
        load_dataset(f"folder:{root}")
    folder(root, "Testing", count=1)
    assert len(load_dataset(f"folder:{root}").test) == 2


def test_splits_are_never_taken_for_classes(tmp_path):
    beside = folder(folder(tmp_path / "beside"), "test")
    with pytest.raises(ValueError, match=r"holds test/.* no train/.*PATH/train/CLASS/\*.*PATH/CLASS/\*"):
        load_dataset(f"folder:{beside}")
    halves = folder(tmp_path / "halves", "Test", "Valid")
    with pytest.raises(ValueError, match="holds Test/"):
        load_dataset(f"folder:{halves}")
    twice = folder(tmp_path / "twice", "train", "training", "test")
    with pytest.raises(ValueError, match="train and training, which could each be the train split"):
        load_dataset(f"folder:{twice}")


def test_classes_missing_from_test_say_how_to_mend_it(tmp_path):
    root = folder(folder(tmp_path, "train"), "test", classes=("cat",))
    with pytest.raises(ValueError, match=r"no images of class dog: add some, or remove test/, "):
        load_dataset(f"folder:{root}")


def test_names_that_are_not_utf8_are_named(tmp_path):
    root = folder(tmp_path / "a", "train", "test", classes=("cat", "dog\udcff"))
    with pytest.raises(ValueError, match=r"train/dog\\udcff has a name that is not UTF-8") as caught:
        load_dataset(f"folder:{root}")
    str(caught.value).encode()
    with pytest.raises(ValueError, match="not UTF-8"):
        load_dataset(f"folder:{folder(tmp_path / 'b' / chr(0xDCFF), 'train')}")


def test_homes_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="no home folder for ~nosuchuser/x"):
        load_dataset("folder:~nosuchuser/x")


def test_more_than_the_memory_is_refused_before_decoding(tmp_path):
    root = folder(tmp_path, "train", "test")
    with pytest.raises(
        ValueError, match=r"12 images of 1000000x1000000 pixels need [\d,.]+ GiB .*--image-size"
    ):
        load_dataset(f"folder:{root}", image_size=1_000_000)


@pytest.mark.parametrize("part", ["", "train"])
def test_folder_without_a_test_split_holds_out_a_fifth_the_same_every_time(tmp_path, part):
    root = folder(tmp_path, part, count=10)
    data = load_dataset(f"folder:{root}")
    assert torch.bincount(data.train.labels).tolist() == [8, 8]
    assert torch.bincount(data.test.labels).tolist() == [2, 2]
    assert load_dataset(f"folder:{root}").fingerprint == data.fingerprint


def test_grey_folders_have_one_channel_and_mixed_ones_three(tmp_path):
    grey = folder(tmp_path / "grey", "train", "test", mode="L")
    assert load_dataset(f"folder:{grey}").image_shape == (1, 8, 8)
    picture(grey / "test" / "cat" / "colour.png")
    assert load_dataset(f"folder:{grey}").image_shape == (3, 8, 8)


def test_mixed_sizes_need_a_size_and_are_cropped_to_it(tmp_path):
    root = folder(tmp_path, "train", "test")
    picture(root / "train" / "cat" / "wide.jpg", size=(20, 10))
    with pytest.raises(ValueError, match="--image-size"):
        load_dataset(f"folder:{root}")
    assert load_dataset(f"folder:{root}", image_size=16).image_shape == (3, 16, 16)
    with pytest.raises(ValueError, match="at least 4"):
        load_dataset(f"folder:{root}", image_size=1)


def test_an_orientation_that_is_no_number_is_passed_over(tmp_path):
    root = folder(tmp_path, "train", "test")
    entry = struct.pack("<HHHI", 1, 0x0112, 2, 2) + b"6\0\0\0"  # a text
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + entry + struct.pack("<I", 0)
    Image.new("RGB", (8, 8)).save(root / "train" / "cat" / "odd.jpg", exif=exif)
    with Image.open(root / "train" / "cat" / "odd.jpg") as image:
        assert image.getexif().get(0x0112) == "6"
    assert len(load_dataset(f"folder:{root}").train) == 7


def test_stray_files_and_empty_folders_are_left_out(tmp_path):
    root = folder(tmp_path, "train", "test")
    (root / "README.txt").write_text("about")
    (root / "train" / "cat" / "Thumbs.db").write_bytes(b"junk")
    (root / "train" / "cat" / "._0.png").write_bytes(b"junk")
    (root / "train" / "empty").mkdir()
    (root / "train" / ".git").mkdir()
    assert len(load_dataset(f"folder:{root}").train) == 6


def test_corrupt_images_are_named(tmp_path):
    root = folder(tmp_path, "train", "test")
    broken = root / "train" / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"cannot read the image .*dog/1\.png"):
        load_dataset(f"folder:{root}")


def test_many_corrupt_images_are_named_at_once(tmp_path, monkeypatch):
    root = folder(tmp_path, "train", "test")
    for name in ("0", "1"):
        (root / "train" / "cat" / f"{name}.png").write_bytes(b"no header")
    for path in (root / "train" / "dog").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    for size in (None, 8):
        with pytest.raises(ValueError, match=r"cannot read 5 of 12 images: .*; mend") as caught:
            load_dataset(f"folder:{root}", image_size=size)
        named = {
            f"{name}/{file}.png" for name, file in [("cat", 0), ("cat", 1), *(("dog", k) for k in range(3))]
        }
        assert {name for name in named if name in str(caught.value)} == named
        assert "\n" not in str(caught.value)
    monkeypatch.setattr("distill.sources.images._NAMED", 3)
    monkeypatch.setenv("ATOM_NAS_CACHE", str(tmp_path / "cache"))
    listed = tmp_path / "cache" / "unreadable.txt"
    with pytest.raises(ValueError, match=r"cannot read 5 of 12 images: .* and 2 more \(all .*\.txt\); mend"):
        load_dataset(f"folder:{root}")
    for path in listed.read_text().splitlines():
        Path(path).unlink()
    with pytest.raises(ValueError, match="holds only the class 'cat'"):  # there are no dogs left
        load_dataset(f"folder:{root}")
    (tmp_path / "cache").rename(tmp_path / "other")
    (tmp_path / "cache").write_text("no folder")
    for name in "abcd":
        (root / "train" / "dog" / f"{name}.png").write_bytes(b"no header")
    with pytest.raises(ValueError, match=r"cannot read 4 of \d+ images: .* and 1 more; mend"):
        load_dataset(f"folder:{root}")
    for path in root.rglob("*.png"):
        path.write_bytes(b"no header")
    with pytest.raises(ValueError, match=r"cannot read 11 of 11 images"):
        load_dataset(f"folder:{root}")


def test_folders_that_cannot_be_classified_are_refused(tmp_path):
    lonely = folder(tmp_path / "one", "train", "test", classes=("cat",))
    with pytest.raises(ValueError, match="only the class 'cat'"):
        load_dataset(f"folder:{lonely}")
    with pytest.raises(ValueError, match="no folder"):
        load_dataset(f"folder:{tmp_path / 'nowhere'}")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="no class folder"):
        load_dataset(f"folder:{tmp_path / 'bare'}")
    strange = folder(tmp_path / "strange", "train", "test")
    picture(strange / "test" / "fish" / "0.png")
    with pytest.raises(ValueError, match="without training images: fish"):
        load_dataset(f"folder:{strange}")


def test_sixteen_bit_transparent_and_rotated_images(tmp_path):
    root = folder(tmp_path, "train", "test", count=1)
    wide = np.full((8, 8), 40_000, dtype=np.uint16)
    Image.fromarray(wide).save(root / "train" / "cat" / "deep.png")
    clear = Image.new("RGBA", (8, 8), (200, 100, 50, 0))
    clear.save(root / "train" / "cat" / "clear.png")
    with pytest.warns(UserWarning, match="1 of 6 images have greys of more than 8 bits, up to 40000"):
        images = load_dataset(f"folder:{root}").train.images
    by_name = dict(zip(["0", "clear", "deep"], images[:3], strict=True))
    assert by_name["deep"].unique().tolist() == [40_000 >> 8]
    assert by_name["clear"].unique().tolist() == [0]


def test_links_that_lead_back_up_are_walked_once(tmp_path):
    root = folder(tmp_path, "", count=5)
    (root / "cat" / "loop").symlink_to(root / "cat")
    (root / "cat" / "up").symlink_to(root)
    data = load_dataset(f"folder:{root}")
    assert len(data.train) + len(data.test) == 10


def test_one_folder_is_not_two_classes(tmp_path):
    root = folder(tmp_path, "", count=5)
    (root / "kitten").symlink_to(root / "cat")
    with pytest.raises(ValueError, match=r"kitten and .*cat are one folder by two names"):
        load_dataset(f"folder:{root}")


def test_pixels_without_a_known_range_are_refused(tmp_path):
    root = folder(tmp_path, "train", "test")
    Image.fromarray(np.zeros((8, 8), dtype=np.float32)).save(root / "train" / "cat" / "float.tiff")
    with pytest.raises(ValueError, match=r"float.tiff .*8 bits"):
        load_dataset(f"folder:{root}")


def test_tinyimagenet(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for wnid in ("n01", "n02"):
        picture(root / "train" / wnid / "images" / f"{wnid}_0.JPEG", size=(64, 64))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
    lines = []
    for i, wnid in enumerate(("n02", "n01", "n02")):
        picture(root / "val" / "images" / f"val_{i}.JPEG", size=(64, 64))
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t0\t62\t62")
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    for data_dir in (tmp_path, root):
        data = load_dataset("tinyimagenet", data_dir=data_dir)
        assert data.image_shape == (3, 64, 64)
        assert data.test.labels.tolist() == [1, 0, 1]
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn99\n")
    with pytest.raises(ValueError, match="line 1"):
        load_dataset("tinyimagenet", data_dir=tmp_path)
    with pytest.raises(ValueError, match="tiny-imagenet-200"):
        load_dataset("tinyimagenet", data_dir=tmp_path / "elsewhere")


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("name", "kind"), [("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)])
def test_cifar_in_torchvisions_files(tmp_path, monkeypatch, name, kind):
    base = tmp_path / kind.base_folder
    base.mkdir()
    classes = 10 if name == "cifar10" else 100
    lists = {}
    for attribute in ("train_list", "test_list"):
        lists[attribute] = []
        for file, _ in getattr(kind, attribute):
            labels = list(range(classes))
            data = RANDOM.integers(0, 256, (classes, 3072), dtype=np.uint8)
            key = "labels" if name == "cifar10" else "fine_labels"
            (base / file).write_bytes(pickle.dumps({"data": data, key: labels}))
            lists[attribute].append([file, _md5(base / file)])
    meta = dict(kind.meta)
    (base / meta["filename"]).write_bytes(pickle.dumps({meta["key"]: [f"c{k}" for k in range(classes)]}))
    meta["md5"] = _md5(base / meta["filename"])
    for attribute, value in {**lists, "meta": meta}.items():
        monkeypatch.setattr(kind, attribute, value)
    data = load_dataset(name, data_dir=tmp_path)
    assert data.image_shape == (3, 32, 32)
    assert data.classes[:2] == ("c0", "c1")
    last = pickle.loads((base / lists["test_list"][0][0]).read_bytes())["data"]
    assert np.array_equal(data.test.images.flatten(1).numpy(), last)


@pytest.mark.parametrize(
    ("name", "kind"), [("mnist", datasets.MNIST), ("fashionmnist", datasets.FashionMNIST)]
)
def test_mnist_in_torchvisions_files(tmp_path, name, kind):
    raw = tmp_path / kind.__name__ / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 20), ("t10k", 10)):
        pixels = RANDOM.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 0x803, count, 28, 28) + pixels.tobytes()
        )
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())
        (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(b""))
    data = load_dataset(name, data_dir=tmp_path)
    assert data.image_shape == (1, 28, 28)
    assert np.array_equal(data.test.images.numpy()[:, 0], pixels)
    assert data.test.labels.tolist() == list(range(10))


def test_svhn_in_torchvisions_files(tmp_path, monkeypatch):
    lists = {}
    for part in ("train", "test"):
        pixels = RANDOM.integers(0, 256, (32, 32, 3, 10), dtype=np.uint8)
        labels = np.array([[10, 1, 2, 3, 4, 5, 6, 7, 8, 9]]).T  # SVHN writes the digit 0 as 10
        path = tmp_path / f"{part}_32x32.mat"
        scipy.io.savemat(path, {"X": pixels, "y": labels})
        lists[part] = ["", path.name, _md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    data = load_dataset("svhn", data_dir=tmp_path)
    assert data.test.labels.tolist() == list(range(10))
    assert np.array_equal(data.test.images[3].numpy(), pixels[:, :, :, 3].transpose(2, 0, 1))


def test_unknown_names_and_sizes_are_refused():
    with pytest.raises(ValueError, match="unknown dataset 'imagenet'"):
        load_dataset("imagenet")
    with pytest.raises(ValueError, match="unknown dataset 'folder:'"):
        load_dataset("folder:")
    with pytest.raises(ValueError, match="one size"):
        load_dataset("digits", image_size=16)


def test_a_download_that_fails_says_where_to_put_the_files(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(datasets.CIFAR10, "download", refuse)
    with pytest.raises(ValueError, match=f"could not get cifar10 .*no network.*{tmp_path}"):
        load_dataset("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("brightest", "shift", "said"), [(250, 0, "8 bits"), (3_900, 4, "12 bits"), (65_000, 8, "16 bits")]
)
def test_deep_greys_of_a_dataset_are_scaled_alike(tmp_path, brightest, shift, said):
    root = tmp_path / "deep"
    values = [brightest, brightest // 2, 200, 17]
    for name in ("cat", "dog"):
        for number, value in enumerate(values):
            file = root / "train" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), value, dtype=np.uint16)).save(file)
        (root / "test" / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8), 9, dtype=np.uint16)).save(root / "test" / name / "0.png")
    with pytest.warns(UserWarning, match=f"10 of 10 images .* up to {brightest}: all are taken for {said}"):
        images = load_dataset(f"folder:{root}").train.images
    assert images[:4].amax(dim=(1, 2, 3)).tolist() == [value >> shift for value in values]


def test_greys_beyond_sixteen_bits_are_refused(tmp_path):
    root = folder(tmp_path, "train", "test", count=1)
    Image.fromarray(np.full((8, 8), 70_000, dtype=np.int32)).save(root / "train" / "cat" / "deep.tif")
    with (
        pytest.warns(UserWarning, match="up to 70000"),
        pytest.raises(ValueError, match=r"deep\.tif \(pixels of more than 16 bits"),
    ):
        load_dataset(f"folder:{root}")

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from codistill.tasks.data import DATASETS, DataError, Dataset, cifar10, digits, mnist, usps

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the project's shared data are not here")


def load(name: str, root: Path | None = None, **parameters: object) -> Dataset:
    return DATASETS[name].function(DATASETS[name].parameters(**parameters), root)


def problems(name: str, root: Path) -> list[str]:
    return DATASETS[name].function.problems(DATASETS[name].parameters(), root)


@pytest.mark.parametrize("size", [8, 28])
def test_digits_have_the_published_split_and_scale(size: int) -> None:
    dataset = load("digits", size=size)
    assert dataset.x_train.shape == (1437, 1, size, size)
    assert dataset.x_test.shape == (360, 1, size, size)
    assert (dataset.x_train.min(), dataset.x_train.max()) == (-1, 1)
    from sklearn.datasets import load_digits

    order = np.random.default_rng(42).permutation(1797)
    assert (dataset.y_test == load_digits().target[order[:360]]).all()
    assert (dataset.y_train == load_digits().target[order[360:]]).all()


def test_digits20_is_checked_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load("digits20")
    assert hashlib.sha256(dataset.x_train.tobytes()).hexdigest() == digits.DIGITS20_X_TRAIN
    assert dataset.x_test.shape == (720, 1, 28, 28)
    monkeypatch.setattr(digits, "DIGITS20_X_TRAIN", "0" * 64)
    with pytest.raises(DataError, match="x_train built here has sha256 9e79.* expected 0000"):
        load("digits20")


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of MNIST's form with 20 and 10 samples, in the folder that torchvision uses, every other one gzipped."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    sums, sizes = {}, {}
    for position, (name, samples) in enumerate(
        [(mnist.TRAIN_IMAGES, 20), (mnist.TRAIN_LABELS, 20), (mnist.TEST_IMAGES, 10), (mnist.TEST_LABELS, 10)]
    ):
        images = "images" in name
        array = generator.integers(0, 256 if images else 10, (samples, 28, 28) if images else samples, dtype=np.uint8)
        content = idx(array)
        sums[name], sizes[name] = hashlib.md5(content).hexdigest(), len(content)
        if position % 2:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    monkeypatch.setattr(mnist, "MNIST_MD5", sums)
    monkeypatch.setattr(mnist, "SIZES", sizes)
    return tmp_path


def test_idx_files_are_read_gzipped_or_not(small_mnist: Path) -> None:
    dataset = load("mnist", small_mnist)
    assert dataset.x_train.shape == (20, 1, 28, 28)
    raw = np.frombuffer((small_mnist / "MNIST" / "raw" / mnist.TRAIN_IMAGES).read_bytes()[16:], dtype=np.uint8)
    np.testing.assert_allclose(dataset.x_train.ravel(), raw / 127.5 - 1, atol=1e-6)
    labels = gzip.decompress((small_mnist / "MNIST" / "raw" / f"{mnist.TRAIN_LABELS}.gz").read_bytes())[8:]
    assert dataset.y_train.tolist() == list(labels)


def test_a_changed_byte_is_refused(small_mnist: Path) -> None:
    path = small_mnist / "MNIST" / "raw" / mnist.TRAIN_IMAGES
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{mnist.TRAIN_IMAGES} has the checksum .* expected"):
        load("mnist", small_mnist)


def test_a_file_cut_short_is_told_before_it_is_read(small_mnist: Path) -> None:
    path = small_mnist / "MNIST" / "raw" / mnist.TRAIN_IMAGES
    path.write_bytes(path.read_bytes()[:-10])
    assert len(problems("mnist", small_mnist)) == 1
    assert "expected 15,696" in problems("mnist", small_mnist)[0]


def test_a_damaged_gzip_is_refused(small_mnist: Path) -> None:
    path = small_mnist / "MNIST" / "raw" / f"{mnist.TRAIN_LABELS}.gz"
    content = bytearray(path.read_bytes())
    content[15] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match="fetch it again"):
        load("mnist", small_mnist)


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00", b"\x00\x00\x08\x03\x00"])
def test_what_is_not_idx_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="not an IDX file"):
        mnist.parse_idx(content, "it")
    with pytest.raises(DataError, match=r"shape \(5,\), but has 4 bytes"):
        mnist.parse_idx(idx(np.zeros(5, dtype=np.uint8))[:-1], "it")


def test_missing_files_name_every_place_and_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "DEBIAN_FOLDER", tmp_path / "debian")
    for name, folders in [("mnist", ["mnist", "MNIST/raw"]), ("fashion-mnist", ["fashion-mnist", "debian"])]:
        (said,) = problems(name, tmp_path)
        assert all(str(tmp_path / folder) in said for folder in folders)
        assert (mnist.MNIST_MD5 if name == "mnist" else mnist.FASHION_MD5)[mnist.TEST_LABELS] in said
        with pytest.raises(DataError, match="no folder holds all four"):
            load(name, tmp_path)


@pytest.mark.skipif(not mnist.DEBIAN_FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not here")
def test_fashion_mnist_of_debian(tmp_path: Path) -> None:
    assert problems("fashion-mnist", tmp_path) == []
    dataset = load("fashion-mnist", tmp_path)
    assert dataset.x_train.shape == (60_000, 1, 28, 28)
    assert np.bincount(dataset.y_test).tolist() == [1000] * 10
    assert dataset.labels[dataset.y_train[0]] == "Ankle boot"


@needs_shared
def test_mnist_as_published() -> None:
    dataset = load("mnist", SHARED)
    assert dataset.y_train[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert (len(dataset.y_train), len(dataset.y_test)) == (60_000, 10_000)


@needs_shared
def test_usps_in_hdf5() -> None:
    pytest.importorskip("h5py")
    dataset = load("usps", SHARED)
    assert (dataset.x_train.shape, dataset.x_test.shape) == ((7291, 1, 16, 16), (2007, 1, 16, 16))
    assert (dataset.x_train.min(), dataset.x_train.max()) == (-1, 1)


def test_a_missing_h5py_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "usps").mkdir()
    (tmp_path / "usps" / "usps.h5").write_bytes(b"")
    monkeypatch.setattr(usps, "find_spec", lambda name: None)
    assert "pip install 'codistill[hdf5]'" in problems("usps", tmp_path)[0]


def test_another_hdf5_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    (tmp_path / "usps").mkdir()
    (tmp_path / "usps" / "usps.h5").write_bytes(b"something else")
    with pytest.raises(DataError, match=f"expected {usps.HDF5_SHA256}"):
        load("usps", tmp_path)


def test_usps_in_the_format_of_libsvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "usps"
    folder.mkdir()
    full = " ".join(f"{index}:{-1 if index % 2 else 0.5}" for index in range(1, 257))
    for name, text in [("usps.bz2", f"10 {full}\n1 {full}\n"), ("usps.t.bz2", "3 1:-1 256:0.25\n")]:
        (folder / name).write_bytes(bz2.compress(text.encode()))
    (folder / "usps.h5").write_bytes(b"passed over")
    with pytest.raises(DataError, match="expected ec16c51db3855ca6c91edd34d0e9b197"):
        load("usps", tmp_path)
    sums = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in ("usps.bz2", "usps.t.bz2")}
    monkeypatch.setattr(usps, "LIBSVM_MD5", sums)
    dataset = load("usps", tmp_path)
    assert dataset.y_train.tolist() == [9, 0]
    assert dataset.y_test.tolist() == [2]
    assert dataset.x_train[0, 0, 0, :4].tolist() == [-1, 0.5, -1, 0.5]
    assert dataset.x_test[0, 0, [0, 0, 15], [0, 1, 15]].tolist() == [-1, 0, 0.25]


@pytest.mark.parametrize("line", ["0 1:1", "11 1:1", "3 257:1", "3 1:x", "3 1", "", "3 1:2"])
def test_lines_that_do_not_fit_are_refused(line: str) -> None:
    with pytest.raises(DataError, match="it"):
        usps.parse_libsvm(f"1 1:1\n{line}\n", "it")


def records(samples: int, seed: int) -> bytes:
    array = np.random.default_rng(seed).integers(0, 256, (samples, 3073), dtype=np.uint8)
    array[:, 0] %= 10
    return array.tobytes()


@pytest.fixture
def small_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cifar10, "RECORDS", 10)
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for seed, name in enumerate((*cifar10.TRAIN_FILES, cifar10.TEST_FILE)):
        (folder / name).write_bytes(records(10, seed))
    return tmp_path


def test_cifar10_records_are_label_then_planes(small_cifar: Path) -> None:
    dataset = load("cifar10", small_cifar)
    assert (dataset.x_train.shape, dataset.x_test.shape) == ((50, 3, 32, 32), (10, 3, 32, 32))
    raw = np.frombuffer(records(10, 1), dtype=np.uint8).reshape(10, 3073)
    assert dataset.y_train[10:20].tolist() == raw[:, 0].tolist()
    assert dataset.x_train[13, 2, 5, 7] == pytest.approx(raw[3, 1 + 2 * 1024 + 5 * 32 + 7] / 127.5 - 1, abs=1e-6)


def test_the_cifar10_archive_is_checked_and_gives_the_same(small_cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from_folder = load("cifar10", small_cifar)
    archive = small_cifar / "cifar10" / cifar10.ARCHIVE
    with tarfile.open(archive, "w:gz") as file:
        file.add(small_cifar / "cifar10" / cifar10.FOLDER, cifar10.FOLDER)
    with pytest.raises(DataError, match=f"expected {cifar10.ARCHIVE_MD5}"):
        load("cifar10", small_cifar)
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    assert load("cifar10", small_cifar).digest() == from_folder.digest()
    assert DATASETS["cifar10"].function.files(cifar10.Cifar10Parameters(), small_cifar) == [archive]


def test_an_archive_without_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / cifar10.ARCHIVE
    with tarfile.open(archive, "w:gz") as file:
        file.addfile(tarfile.TarInfo(f"{cifar10.FOLDER}/readme.html"), io.BytesIO())
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    with pytest.raises(DataError, match=r"does not hold data_batch_1\.bin"):
        load("cifar10", tmp_path)


def test_wrong_record_sizes_and_missing_files_are_all_told(small_cifar: Path) -> None:
    folder = small_cifar / "cifar10" / cifar10.FOLDER
    (folder / "data_batch_2.bin").write_bytes(records(9, 0))
    (folder / "test_batch.bin").unlink()
    said = problems("cifar10", small_cifar)
    assert len(said) == 2
    assert "27,657 bytes, expected 10 records" in said[0]
    assert "is missing" in said[1]


def test_a_class_above_nine_is_refused(small_cifar: Path) -> None:
    path = small_cifar / "cifar10" / cifar10.FOLDER / "test_batch.bin"
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    with pytest.raises(DataError, match="class 10"):
        load("cifar10", small_cifar)


@pytest.mark.parametrize("name", cifar10.PICKLED)
def test_the_python_version_of_cifar10_is_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (said,) = problems("cifar10", tmp_path)
    assert f"{tmp_path / name} is the Python version: it is pickled" in said
    assert cifar10.ARCHIVE_MD5 in said
    assert "it is pickled" not in problems("cifar10", tmp_path / "elsewhere")[0]

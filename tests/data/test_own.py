from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codistill.tasks.data import DATASETS, DataError, Dataset, Source
from PIL import Image
from pydantic import ValidationError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the project's shared data are not here")


def source(name: str) -> Source:
    return DATASETS[name].function


def load(source_name: str, root: Path, **parameters: Any) -> Dataset:
    return source(source_name)(DATASETS[source_name].parameters(**parameters), root)


def problems(source_name: str, root: Path, **parameters: Any) -> str:
    return "\n".join(source(source_name).problems(DATASETS[source_name].parameters(**parameters), root))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of six 4x4 colour pictures: cats are red, dogs blue, brighter from one to the next."""
    for label, channel in [("dog", 2), ("cat", 0)]:
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(6):
            array = np.zeros((4, 4, 3), dtype=np.uint8)
            array[:, :, channel] = 100 + number
            Image.fromarray(array).save(tmp_path / "pictures" / label / f"{number}.png")
    (tmp_path / "pictures" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "pictures" / "cat" / "._0.png").write_text("what a Mac leaves behind")
    return tmp_path


def test_a_folder_of_images(pictures: Path) -> None:
    dataset = load("folder", pictures, path="pictures", test_share=1 / 3)
    assert dataset.labels == ("cat", "dog")
    assert (dataset.x_train.shape, dataset.x_test.shape) == ((8, 3, 4, 4), (4, 3, 4, 4))
    assert dataset.y_train.tolist() == [0] * 4 + [1] * 4
    assert (dataset.x_train[0, 1:] == -1).all()
    assert (dataset.x_train[-1, :2] == -1).all()
    both = np.concatenate([dataset.x_train[:4, 0, 0, 0], dataset.x_test[:2, 0, 0, 0]])
    np.testing.assert_allclose(np.sort(both), (np.arange(100, 106) / 127.5) - 1, atol=1e-6)
    assert load("folder", pictures, path="pictures", test_share=1 / 3).digest() == dataset.digest()


@pytest.mark.parametrize("top", ["", "all/of/it/"])
def test_a_zip_gives_what_the_folder_gives(pictures: Path, top: str) -> None:
    with zipfile.ZipFile(pictures / "pictures.zip", "w") as archive:
        for path in (pictures / "pictures").rglob("*"):
            archive.write(path, f"{top}{path.relative_to(pictures / 'pictures')}")
        archive.writestr("__MACOSX/cat/0.png", b"")
    from_zip = load("folder", pictures, path="pictures.zip")
    assert from_zip.digest() == load("folder", pictures, path="pictures").digest()


def test_size_greyscale_and_limit(pictures: Path) -> None:
    dataset = load("folder", pictures, path="pictures", size=2, greyscale=True, limit_per_class=3, test_share=0.5)
    assert dataset.x_train.shape[1:] == (1, 2, 2)
    assert len(dataset.y_train) + len(dataset.y_test) == 6


def test_images_of_two_sizes_need_a_size(pictures: Path) -> None:
    Image.new("RGB", (5, 4)).save(pictures / "pictures" / "dog" / "9.png")
    with pytest.raises(DataError, match=r"dog/9\.png .* cat/0\.png .*`size`"):
        load("folder", pictures, path="pictures")
    assert load("folder", pictures, path="pictures", size=4).input_shape == (3, 4, 4)


def test_a_broken_image_is_named(pictures: Path) -> None:
    (pictures / "pictures" / "dog" / "3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"dog/3\.png cannot be read"):
        load("folder", pictures, path="pictures")


def test_a_test_folder_must_have_known_classes(pictures: Path) -> None:
    (pictures / "pictures").rename(pictures / "train")
    for label in ("cat", "dog"):
        (pictures / "test" / label).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(pictures / "test" / label / "0.png")
    dataset = load("folder", pictures, path="train", test_path="test")
    assert (len(dataset.y_train), dataset.y_test.tolist()) == (12, [0, 1])
    (pictures / "test" / "cat").rename(pictures / "kept")
    (pictures / "test" / "sub").mkdir()
    assert problems("folder", pictures, path="train", test_path="test")  # one class is not enough to tell folders
    (pictures / "kept").rename(pictures / "test" / "cat")
    for label in ("ant", "bee"):
        (pictures / "train" / label).mkdir()
        Image.new("RGB", (4, 4)).save(pictures / "train" / label / "0.png")
    assert load("folder", pictures, path="train", test_path="test").y_test.tolist() == [2, 3]
    (pictures / "test" / "dog").rename(pictures / "test" / "wolf")
    assert "['wolf']" in problems("folder", pictures, path="train", test_path="test")
    assert "both" in problems("folder", pictures, path="train", test_path="train")


def test_folder_problems(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    said = problems("folder", pictures, path="nowhere", test_path="elsewhere")
    assert str(pictures / "nowhere") in said
    assert str(Path.cwd() / "elsewhere") in said
    (pictures / "text.zip").write_text("no zip")
    assert "neither" in problems("folder", pictures, path="text.zip")
    above = tmp_path_factory.mktemp("above")
    (above / "pictures").mkdir()
    (pictures / "pictures").rename(above / "pictures" / "train")
    (above / "pictures" / "test" / "cat").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(above / "pictures" / "test" / "cat" / "0.png")
    assert "test_path" in problems("folder", above, path="pictures")
    assert "0 class folders" in problems("folder", above, path="pictures/train/cat")
    with pytest.raises(ValidationError, match="not both"):
        DATASETS["folder"].parameters(path="a", test_path="b", test_share=0.5)


@needs_shared
def test_cifar10_as_jpeg_in_zips() -> None:
    parts = {"path": "cifar10_jpeg/train_25k.zip", "test_path": "cifar10_jpeg/test.zip"}
    dataset = load("folder", SHARED, **parts, limit_per_class=5)
    assert (dataset.x_train.shape, dataset.classes) == ((50, 3, 32, 32), 10)
    assert dataset.labels[0] == "airplane"


CSV = """age,weight,ward,ill
30,60.5,north,yes
40,?,south,no
50,80.5,north,no
60,90.5,south,yes
70,70.5,north,yes
80,,south,no
"""


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    (tmp_path / "ward.csv").write_text(CSV)
    return tmp_path


def test_missing_values_are_refused_until_something_is_said(ward: Path) -> None:
    with pytest.raises(DataError, match=r"weight \(2\) of 6 rows"):
        load("table", ward, path="ward.csv", label="ill", keep=["ward"])


def test_rows_with_gaps_are_dropped(ward: Path) -> None:
    dataset = load(
        "table", ward, path="ward.csv", label="ill", keep=["ward"], missing="drop", standardise=False, test_share=0.25
    )
    rows = np.concatenate([dataset.x_train, dataset.x_test])
    assert sorted(rows.tolist()) == [[30, 60.5], [50, 80.5], [60, 90.5], [70, 70.5]]
    assert dataset.labels == ("no", "yes")
    by_age = dict(zip(dataset.x_train[:, 0].tolist(), dataset.columns_train["ward"].tolist(), strict=True))
    assert all(by_age[age] == {30: "north", 50: "north", 60: "south", 70: "north"}[age] for age in by_age)


def test_gaps_are_filled_and_scales_evened_out_by_the_train_part_alone(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(5, 3, (60, 2))
    values[7, 0] = values[40, 1] = np.nan
    lines = [f"{a},{b},{row % 2}" for row, (a, b) in enumerate(values)]
    (tmp_path / "t.csv").write_text("a,b,y\n" + "\n".join(lines))
    dataset = load("table", tmp_path, path="t.csv", label="y", missing="mean", test_share=0.5)
    np.testing.assert_allclose(dataset.x_train.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(dataset.x_train.std(axis=0), 1, atol=1e-5)
    assert np.abs(dataset.x_test.mean(axis=0)).min() > 1e-3  # would be 0 if the test part had counted
    raw = load("table", tmp_path, path="t.csv", label="y", missing="mean", test_share=0.5, standardise=False)
    filled = np.concatenate([raw.x_train, raw.x_test])
    known = {float(np.float32(value)) for value in values.ravel()}
    train_means = [np.mean([value for value in raw.x_train[:, one] if float(value) in known]) for one in range(2)]
    gaps = [[float(value) for value in filled[:, one] if float(value) not in known] for one in range(2)]
    np.testing.assert_allclose(np.ravel(gaps), train_means, rtol=1e-5)


def test_a_constant_feature_becomes_zero(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,y\n" + "\n".join(f"{row},7,{row % 2}" for row in range(10)))
    assert (load("table", tmp_path, path="t.csv", label="y").x_train[:, 1] == 0).all()


def test_parquet_files_by_glob_give_what_csv_gives(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import csv, parquet

    for name, start in [("b", 50), ("a", 0)]:
        lines = [f"{row},{row % 7},{row % 3}" for row in range(start, start + 50)]
        (tmp_path / f"{name}.csv").write_text("x,z,y\n" + "\n".join(lines))
        table = csv.read_csv(tmp_path / f"{name}.csv")
        as_words = table.column("y").cast(pa.string()).dictionary_encode()
        parquet.write_table(table.set_column(2, "y", as_words), tmp_path / f"{name}.parquet")
    parts = {"label": "y", "file_column": "site", "keep": ["site"]}
    one, two = (load("table", tmp_path, path=f"*.{kind}", **parts) for kind in ("csv", "parquet"))
    assert one.digest() == two.digest()
    assert one.columns_train["site"][0] == "a"
    assert one.labels == ("0", "1", "2")
    listed = load("table", tmp_path, path=["b.csv", "a.csv"], **parts)
    assert listed.columns_train["site"][0] == "b"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"path": "nix.csv", "label": "ill"}, "no file at .*nix.csv"),
        ({"path": [], "label": "ill"}, "empty list"),
        ({"path": ["ward.csv", "w*.csv"], "label": "ill"}, "read twice"),
        ({"path": "ward.csv", "label": "sick"}, "no column 'sick'; there are 'age', 'weight', 'ward', 'ill'"),
        ({"path": "ward.csv", "label": "ill", "features": ["age", "ill"]}, "be the label"),
    ],
)
def test_table_problems_are_told_before_reading(ward: Path, parameters: dict[str, Any], said: str) -> None:
    assert re.search(said, problems("table", ward, **parameters))


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"label": "ill"}, "ward hold text"),
        ({"label": "weight", "features": ["age"], "missing": "drop"}, "holds fractions"),
        ({"label": "ill", "features": ["age"], "label_above": 1}, "text, so label_above"),
        ({"label": "weight", "features": ["age"], "missing": "mean"}, r"weight \(2\)"),
    ],
)
def test_columns_that_do_not_fit_are_refused(ward: Path, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        load("table", ward, path="ward.csv", **parameters)


def test_two_classes_are_made_of_a_measurement(ward: Path) -> None:
    dataset = load(
        "table", ward, path="ward.csv", label="weight", features=["age"], missing="drop", label_above=75,
        standardise=False, test_share=0.5,
    )  # fmt: skip
    assert dataset.labels == ("weight <= 75", "weight > 75")
    classes = dict(zip(dataset.x_train[:, 0].tolist(), dataset.y_train.tolist(), strict=True))
    classes |= dict(zip(dataset.x_test[:, 0].tolist(), dataset.y_test.tolist(), strict=True))
    assert classes == {30: 0, 50: 1, 60: 1, 70: 0}


def test_files_with_other_columns_are_refused(ward: Path) -> None:
    (ward / "ward2.csv").write_text("age,ill\n1,yes\n2,no\n")
    with pytest.raises(DataError, match=r"ward2\.csv has the columns \['age', 'ill'\]"):
        load("table", ward, path="*.csv", label="ill")


@needs_shared
def test_four_hospitals() -> None:
    names = [
        "age", "sex", "pain", "pressure", "cholesterol", "sugar", "ecg", "rate", "angina", "peak", "slope", "vessels",
        "thal", "num",
    ]  # fmt: skip
    dataset = load(
        "table", SHARED, path="heart_disease/processed.*.data", names=names, label="num", label_above=0,
        file_column="hospital", keep=["hospital"], missing="mean",
    )  # fmt: skip
    hospitals = np.concatenate([dataset.columns_train["hospital"], dataset.columns_test["hospital"]])
    counts = dict(zip(*(one.tolist() for one in np.unique(hospitals, return_counts=True)), strict=True))
    assert counts == {
        "processed.cleveland": 303, "processed.hungarian": 294, "processed.switzerland": 123, "processed.va": 200,
    }  # fmt: skip
    assert dataset.x_train.shape[1] == 13


MODULE = """
import numpy as np
from codistill.tasks.data import Dataset

def four(samples, shape=(2,)):
    x = np.arange(samples * shape[0], dtype=np.float64).reshape(samples, -1)
    return x, np.arange(samples) % 2, x + 1, np.arange(samples) % 3

def whole():
    x, y = np.ones((2, 1), dtype=np.float32), np.array([0, 1])
    return Dataset("own", x, y, x, y, ("no", "yes"))

def table():
    return {"x": 1}

def gaps():
    x, y = np.full((2, 1), np.nan), np.array([0, 1])
    return x, y, x, y

def floats():
    x = np.ones((2, 1))
    return x, x[:, 0], x, x[:, 0]
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_own_data.py").write_text(MODULE)
    (tmp_path / "my_broken_data.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_own_data", raising=False)
    return tmp_path


def test_a_function_gives_arrays_or_a_data_set(own_module: Path) -> None:
    dataset = load("callable", own_module, function="my_own_data:four", arguments={"samples": 6})
    assert (dataset.x_train.dtype, dataset.x_train.shape) == (np.float32, (6, 2))
    assert dataset.labels == ("0", "1", "2")
    assert dataset.y_test.tolist() == [0, 1, 2, 0, 1, 2]
    assert load("callable", own_module, function="my_own_data:whole").labels == ("no", "yes")


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        ("not_there.at_all:f", {}, "ModuleNotFoundError.*PYTHONPATH"),
        ("my_broken_data:f", {}, "ZeroDivisionError"),
        ("my_own_data:five", {}, "no function 'five'; it has four, whole"),
        ("my_own_data:four", {}, "cannot take these arguments.*samples"),
        ("my_own_data:four", {"samples": 2, "colour": 1}, "colour"),
    ],
)
def test_callable_problems(own_module: Path, function: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        load("callable", own_module, function=function, arguments=arguments)
    assert problems("callable", own_module, function=function, arguments=arguments)


@pytest.mark.parametrize(
    ("name", "said"), [("table", "returned dict"), ("gaps", "NaN or infinite"), ("floats", "whole numbers")]
)
def test_what_a_function_returns_is_checked(own_module: Path, name: str, said: str) -> None:
    assert not problems("callable", own_module, function=f"my_own_data:{name}")
    with pytest.raises(DataError, match=said):
        load("callable", own_module, function=f"my_own_data:{name}")


@pytest.mark.parametrize("function", ["no_colon", ":f", "a:b:c", "a b:c"])
def test_a_function_is_named_by_module_and_name(function: str) -> None:
    with pytest.raises(ValidationError):
        DATASETS["callable"].parameters(function=function)

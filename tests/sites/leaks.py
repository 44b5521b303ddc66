"""Looking for what is private in everything that was written outside its site."""

import numpy as np
import pyarrow.parquet as pq
from codistill.flows.sites.home import private_folder
from codistill.tests.sites.hospitals import HOSPITALS
from safetensors.torch import load_file

WINDOW = 6
"""Numbers in a row that are found by accident nowhere."""


def everything_written(*folders):
    """Yield name and bytes of every file, and of what tables and letters in them hold, unpacked."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or path.name == "key.json":
                continue
            content = path.read_bytes()
            yield str(path), content
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                for name in table.column_names:
                    yield f"{path}:{name}", repr(table.column(name).to_pylist()).encode()


def traces(values):
    """Return what numbers look like where somebody wrote them: their bytes in float32, float16 and float64."""
    flat = np.ascontiguousarray(values).reshape(-1)
    windows = [flat[i : i + WINDOW] for i in range(0, len(flat) - WINDOW + 1, WINDOW)]
    windows = [one for one in windows if len(np.unique(one)) > WINDOW // 2]
    return [one.astype(kind).tobytes() for one in windows for kind in (np.float32, np.float16, np.float64)]


def private(federation, folder):
    """Return what each site must keep: rows of its file, samples as they are learned from, weights of its models."""
    found = {}
    run = folder.info()["digest"][:16]
    for site in HOSPITALS:
        text = (federation.data / site / "heart.csv").read_bytes().splitlines()
        with federation.at(site):
            own = private_folder(site, run)
            data = federation.desk(site)._held(federation.said)[1]
        samples = traces(data.data.x_train[len(data.public) :]) + traces(data.data.x_test)
        models = [load_file(path) for path in own.path.glob("models/*.safetensors")]
        assert models, "the site has models of its own"
        weights = [one for model in models for value in model.values() for one in traces(value.numpy())]
        found[site] = {"rows": text, "samples": samples, "weights": weights}
        assert all(len(one) > 20 for one in found[site].values())
    return found


def leaks(federation, folder, *more):
    """Return (site, what, file) for everything private that was written outside its site; ``more`` folders too."""
    kept = private(federation, folder)
    outside = [*everything_written(federation.store, federation.runs, federation.home / "coordinator", *more)]
    found = []
    for site, parts in kept.items():
        others = [*everything_written(*(federation.home / other for other in HOSPITALS if other != site))]
        for what, marks in parts.items():
            for name, content in (*outside, *others):
                if any(mark in content for mark in marks):
                    found.append((site, what, name))
    return found

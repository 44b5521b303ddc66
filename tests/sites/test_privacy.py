"""Nothing private leaves a site: everything that was written outside is looked at."""

import numpy as np
import pyarrow as pa
import pytest
from codistill.flows.sites.home import private_folder
from codistill.tests.sites.hospitals import WITH_PUBLIC
from codistill.tests.sites.leaks import leaks, traces
from safetensors.torch import load_file


@pytest.mark.parametrize("case", [("recipe=fd",), ("recipe=fedproto",), ("recipe=fedmd", WITH_PUBLIC)])
def test_data_and_models_stay_where_they_are(federation, case):
    """With recipes that exchange no weights, neither samples nor weights are anywhere but at their site."""
    said = (*case, "engine.keep=true", "agents[1].count=1")
    federation.said = federation.spec(*said).value.model_dump(mode="json", by_alias=True)
    folder = federation.run(*said)
    assert len([*federation.store.rglob("packets/*/*")]) > 10, "what was sent was kept to be looked at"
    assert leaks(federation, folder) == []


def test_what_is_sent_is_found_by_the_same_look(federation):
    """The look is no blind one: where weights are exchanged it finds them, and still no sample."""
    said = ("recipe=fedavg", "engine.keep=true", "agents[1].count=1", "rounds=1")
    federation.said = federation.spec(*said).value.model_dump(mode="json", by_alias=True)
    folder = federation.run(*said)
    with federation.at("va"):
        own = private_folder("va", folder.info()["digest"][:16])
    found = leaks(federation, folder)
    assert found == [] or {what for _, what, _ in found} == {"weights"}
    packets = b"".join(path.read_bytes() for path in federation.store.rglob("packets/*/*"))
    sent = load_file(next(own.path.glob("models/*.safetensors")))
    delivered = {key.removeprefix("model/"): value for key, value in sent.items()}
    assert any(mark in packets for value in delivered.values() for mark in traces(value.numpy())), "delivered weights"


def test_a_file_left_by_accident_would_be_found(federation):
    said = ("recipe=fd", "engine.keep=true", "agents[1].count=1", "rounds=1")
    federation.said = federation.spec(*said).value.model_dump(mode="json", by_alias=True)
    folder = federation.run(*said)
    assert leaks(federation, folder) == []
    with federation.at("va"):
        held = federation.desk("va")._held(federation.said)[1]
    batch = pa.record_batch([pa.array(held.data.x_train[7].astype(np.float32))], names=["x"])
    with pa.OSFile(str(federation.store / "left"), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    assert [(site, what) for site, what, _ in leaks(federation, folder)] == [("va", "samples")]

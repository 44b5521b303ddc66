"""The shared store: a folder, and a real server of S3's protocol."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from codistill.flows.shared_store import SharedStore, SharedStoreError
from codistill.tests.sites.conftest import federation
from codistill.tests.sites.together import rows

__all__ = ["federation"]  # a fixture


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    if request.param == "folder":
        return SharedStore(str(tmp_path / "store"))
    return SharedStore(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def test_what_is_put_is_there_for_everybody_at_once(store):
    """A second store of the same URL sees each change: nothing is remembered of what was there."""
    other = SharedStore(store.url)
    assert (other.get("a/b/c"), other.size("a/b/c"), other.names("a/b")) == (None, None, [])
    store.put("a/b/c", b"first")
    assert (other.get("a/b/c"), other.size("a/b/c"), other.names("a/b")) == (b"first", 5, ["c"])
    store.put("a/b/c", b"the second")
    store.put("a/b/d", b"")
    assert (other.get("a/b/c"), other.size("a/b/d"), other.names("a/b")) == (b"the second", 0, ["c", "d"])
    assert other.names("a") == ["b"]
    other.forget("a/b/c")
    assert (store.get("a/b/c"), store.names("a/b")) == (None, ["d"])
    other.forget("a")
    assert store.names("a") == [] and store.get("a/b/d") is None
    other.forget("a")  # what is not there is gone already


def test_two_that_write_one_file_leave_one_of_the_two(store):
    contents = [bytes([number]) * 100_000 for number in range(4)]
    with ThreadPoolExecutor(len(contents)) as threads:
        for written in [threads.submit(store.put, "at/once", content) for content in contents]:
            written.result()
    assert store.get("at/once") in contents
    assert store.names("at") == ["once"]


def test_a_store_that_cannot_be_is_named():
    with pytest.raises(
        SharedStoreError, match=r"engine.store: nothing://here cannot be used \(.*\); give a folder, or a URL"
    ):
        SharedStore("nothing://here")


def test_a_folder_that_refuses_a_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SharedStoreError, match=r"refused x \((Not a directory|File exists)\); see who may write there"):
        SharedStore(str(tmp_path / "file")).put("x", b"")
    if os.geteuid() != 0:
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(SharedStoreError, match="Permission denied"):
            SharedStore(str(tmp_path)).put("x/y", b"")


def test_a_bucket_that_is_not_there(bucket):
    with pytest.raises(SharedStoreError, match="s3://other/run refused a/b"):
        SharedStore("s3://other/run").put("a/b", b"x")


def test_a_run_on_sites_by_s3_is_the_run_by_a_folder(federation, bucket, recipe="fedavg"):
    said = (f"recipe={recipe}", "rounds=2", "participation.share=0.7")
    by_folder = federation.run(*said)
    expected = {table: rows(by_folder, table) for table in ("metrics", "ledger")}
    federation.store, federation.runs, federation.desks = f"{bucket}/{recipe}", federation.base / "again", {}
    by_s3 = federation.run(*said)
    assert {table: rows(by_s3, table) for table in expected} == expected
    left = SharedStore(federation.store)
    for run in left.names("va"):  # what nobody reads again is removed; the last word of a run stays
        assert left.names(f"va/{run}") == ["replies"] and len(left.names(f"va/{run}/replies")) == 1

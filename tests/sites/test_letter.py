"""Letters: what is read is what was written by whom the spec names, or nothing."""

import base64

import pyarrow as pa
import pytest
from codistill.flows.sites.keys import KeyFileError, own_key, public_bytes, read_key
from codistill.flows.sites.letter import ROOM, Address, LetterRefusedError, opened, sealed

HERE = Address("run", "north", "packets/0000001/0-1")


@pytest.fixture
def keys(tmp_path):
    return own_key(tmp_path / "north"), own_key(tmp_path / "south")


def resealed(letter, **changes):
    """Return a letter whose metadata or body somebody changed on the way."""
    with pa.ipc.open_stream(letter) as reader:
        schema, (batch,) = reader.schema, list(reader)
    said = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    body = changes.pop("body", batch.column(0)[0].as_py())
    schema = schema.with_metadata(said | changes)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch([pa.array([body], pa.large_binary())], schema=schema))
    return sink.getvalue().to_pybytes()


def test_what_was_written_is_read(keys):
    for body in (b"", b"{}", bytes(range(256)) * 100):
        assert opened(sealed(body, HERE, keys[0]), HERE, keys[0].public, 30_000).to_pybytes() == body


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda letter: letter[:-20], "it is no letter"),
        (lambda letter: b"", "it is no letter"),
        (lambda letter: b"\x80\x04\x95 a pickle.", "it is no letter"),
        (lambda letter: letter.replace(b"secret", b"public"), "it is not signed with the key of north"),
        (lambda letter: resealed(letter, body=b"other"), "it is not signed with the key of north"),
        (lambda letter: resealed(letter, version="2"), "it is of version 2, and this codistill reads version 1"),
        (lambda letter: resealed(letter, run="another"), "it is not signed with the key of north"),
        (lambda letter: resealed(letter, signature="AAAA"), "it is not signed with the key of north"),
        (lambda letter: resealed(letter, signature="?"), "it is no letter"),
        (lambda letter: letter + bytes(2 * ROOM), "it has"),
    ],
)
def test_what_was_changed_is_refused(keys, change, reason):
    letter = change(sealed(b"secret", HERE, keys[0]))
    with pytest.raises(LetterRefusedError, match=f"^north/run/packets/0000001/0-1 is refused: {reason}"):
        opened(letter, HERE, keys[0].public, 100)


def test_a_letter_of_another_or_from_elsewhere_is_refused(keys):
    with pytest.raises(LetterRefusedError, match="not signed with the key"):
        opened(sealed(b"x", HERE, keys[1]), HERE, keys[0].public, 100)
    for other in (Address("run", "north", "packets/0000002/0-1"), Address("old", "north", HERE.name)):
        with pytest.raises(LetterRefusedError, match="was written as north/.*, and lies here"):
            opened(sealed(b"x", other, keys[0]), HERE, keys[0].public, 100)


def test_two_rows_or_another_column_are_no_letter(keys):
    for batch in (
        pa.record_batch([pa.array([b"a", b"b"], pa.large_binary())], names=["body"]),
        pa.record_batch([pa.array(["a"])], names=["body"]),
    ):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema.with_metadata({"version": "1"})) as writer:
            writer.write_batch(batch.replace_schema_metadata({"version": "1"}))
        with pytest.raises(LetterRefusedError, match="it is not one row with a body"):
            opened(sink.getvalue().to_pybytes(), HERE, keys[0].public, 10_000)


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path):
    first = own_key(tmp_path / "home")
    assert own_key(tmp_path / "home").public == first.public
    assert len(public_bytes(first.public)) == 32
    path = tmp_path / "home" / "key.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert base64.b64encode(first.private.private_bytes_raw()).decode() in path.read_text()
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="can be read by others"):
        own_key(tmp_path / "home")
    path.chmod(0o600)
    path.write_text("{}")
    with pytest.raises(KeyFileError, match="holds no key"):
        read_key(path)


@pytest.mark.parametrize("said", ["", "ed25519:", "ed25519:AAAA", "rsa:" + "A" * 43 + "=", "ed25519:" + "?" * 44])
def test_what_is_no_public_key(said):
    with pytest.raises(ValueError, match="expected a public key as `codistill site key` prints it"):
        public_bytes(said)

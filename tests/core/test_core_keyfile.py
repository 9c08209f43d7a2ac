"""Key files: written once, read back, encrypted and decrypted."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from p2pnode.core.errors import KeyFileError
from p2pnode.core.keyfile import (
    KdfCost,
    change_passphrase,
    is_encrypted,
    load_account_key,
    load_node_key,
    load_or_create_account_key,
    load_or_create_node_key,
)

CHEAP = KdfCost(memory_kib=8, iterations=1, lanes=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.key"


def test_a_node_key_is_created_once_and_read_again(path: Path) -> None:
    """The first call creates both keys, later ones return the same; nothing else is left in the folder."""
    key = load_or_create_node_key(path, os.urandom)
    again = load_or_create_node_key(path, os.urandom)
    assert (again.seed, again.x25519_public) == (key.seed, key.x25519_public)
    assert load_node_key(path).peer_id == key.peer_id
    assert os.listdir(path.parent) == [path.name]


def test_an_account_key_is_created_once_and_read_again(path: Path) -> None:
    """The same for accounts; loading without creating wants a file."""
    with pytest.raises(KeyFileError, match="no such file"):
        load_account_key(path)
    key = load_or_create_account_key(path, os.urandom)
    assert load_or_create_account_key(path, os.urandom).seed == load_account_key(path).seed == key.seed


def test_the_file_says_whose_key_it_is_and_nothing_more(path: Path) -> None:
    """Before the first block stand the kind and the public keys; neither seed appears in hex anywhere."""
    key = load_or_create_node_key(path, os.urandom)
    text = path.read_text()
    assert str(key.peer_id) in text
    assert key.x25519_public.hex() in text
    assert key.seed.hex() not in text


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
def test_openssl_reads_the_file(path: Path) -> None:
    """The first block is standard PKCS8: openssl prints our public key."""
    key = load_or_create_node_key(path, os.urandom)
    done = subprocess.run(
        ["openssl", "pkey", "-in", path, "-pubout", "-outform", "DER"], capture_output=True, check=True
    )
    assert done.stdout.endswith(key.public_raw)


@pytest.mark.parametrize("passphrase", ["correct horse", "grün €", "x" * 1000])
def test_an_encrypted_file_opens_with_its_passphrase(path: Path, passphrase: str) -> None:
    """A new file can be encrypted at once; the same key comes back, and the file shows no seed."""
    key = load_or_create_node_key(path, os.urandom, lambda: passphrase, encrypt_new=True, cost=CHEAP)
    assert is_encrypted(path)
    assert "BEGIN P2PNODE ENCRYPTED KEY" in path.read_text()
    assert load_or_create_node_key(path, os.urandom, lambda: passphrase).seed == key.seed


def test_a_passphrase_may_be_composed_in_either_way(path: Path) -> None:
    """The same letters from another keyboard (NFC or NFD) open the file."""
    key = load_or_create_account_key(path, os.urandom, lambda: "gr\u00fcn", encrypt_new=True, cost=CHEAP)
    assert load_account_key(path, lambda: "gru\u0308n").seed == key.seed


def test_nobody_is_asked_for_a_passphrase_that_is_not_needed(path: Path) -> None:
    """Creating and reading a plain file never calls `passphrase`."""

    def never() -> str:
        raise AssertionError("asked")

    load_or_create_node_key(path, os.urandom, never)
    load_or_create_node_key(path, os.urandom, never)
    assert not is_encrypted(path)


def test_a_passphrase_is_set_changed_and_removed(path: Path) -> None:
    """The key stays the same through all of it, the mode 0600, and no temporary file is left."""
    key = load_or_create_node_key(path, os.urandom)
    change_passphrase(path, "node", os.urandom, None, "one", cost=CHEAP)
    assert is_encrypted(path)
    change_passphrase(path, "node", os.urandom, lambda: "one", "two", cost=CHEAP)
    with pytest.raises(KeyFileError, match="Wrong passphrase"):
        load_node_key(path, lambda: "one")
    assert load_node_key(path, lambda: "two").seed == key.seed
    change_passphrase(path, "node", os.urandom, lambda: "two", None)
    assert not is_encrypted(path)
    assert load_node_key(path).seed == key.seed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == [path.name]


def test_each_encryption_has_fresh_salt_and_nonce(path: Path) -> None:
    """The same key under the same passphrase never gives the same file."""
    load_or_create_node_key(path, os.urandom)
    change_passphrase(path, "node", os.urandom, None, "same", cost=CHEAP)
    first = path.read_text()
    change_passphrase(path, "node", os.urandom, lambda: "same", "same", cost=CHEAP)
    assert path.read_text() != first


@pytest.mark.parametrize(
    "cost", [(7, 1, 1), (2**20 + 1, 1, 1), (64, 0, 1), (64, 65, 1), (64, 1, 0), (2**20, 1, 17), (16, 1, 4)]
)
def test_kdf_cost_is_validated(cost: tuple[int, int, int]) -> None:
    """Out of range is a ValueError at construction."""
    with pytest.raises(ValueError, match="range"):
        KdfCost(*cost)


def test_default_cost_is_rfc_9106s_second_recommendation() -> None:
    """64 MiB, 3 iterations, 4 lanes (RFC 9106, section 4)."""
    assert KdfCost() == KdfCost(memory_kib=64 * 1024, iterations=3, lanes=4)


def test_line_ends_of_another_system_do_not_matter(path: Path) -> None:
    """A file that an editor saved with CRLF is read."""
    key = load_or_create_node_key(path, os.urandom)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_node_key(path).seed == key.seed

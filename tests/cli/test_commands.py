"""Commands without a running node: ids, settings, reading, and each bad input as one sentence."""

import os
import socket
import stat
from pathlib import Path

import pytest
from support.cli import Result, p2pnode

from p2pnode import PeerId, UserId

USER = "p2p1keknafetf00apqhqp5msukfq92yyt2cyaufrcdc792v86ge7gqssee3ye8"
PEER = "12D3KooWPK7MsXCzqaJX1zWetqBFaLs9JA2pfjfMgmf6wHNeDBCE"


def one_sentence(result: Result, code: int = 1) -> str:
    """Check the shape of every refusal: the exit code, nothing on stdout, one line on stderr."""
    assert result.code == code, result
    assert result.out == ""
    assert result.err.startswith("p2pnode: ")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err
    return result.err


def test_id_makes_keys_once_and_keeps_them(tmp_path: Path) -> None:
    """The first `id` creates both keys, 0600; the next shows the same."""
    home = tmp_path / "home"
    first, second = p2pnode("id", "--json", home=home), p2pnode("id", "--json", home=home)
    assert first.code == second.code == 0
    assert first.json == second.json
    assert set(first.json) == {"peer_id", "user_id", "safety_number"}
    PeerId.parse(first.json["peer_id"])
    UserId.parse(first.json["user_id"])
    assert len(first.json["safety_number"].split()) == 6
    assert {stat.S_IMODE((home / name).stat().st_mode) for name in ("node.key", "account.key")} == {0o600}


def test_id_draws_a_qr_code(tmp_path: Path) -> None:
    """`--qr` adds a code to scan."""
    result = p2pnode("id", "--qr", home=tmp_path / "h")
    assert result.code == 0
    assert "▄" in result.out or "█" in result.out


def test_passphrase_locks_the_keys(tmp_path: Path) -> None:
    """Without it, with a wrong one, with the right one from a file, and removed again."""
    home = tmp_path / "home"
    ids = p2pnode("id", "--json", home=home).json
    assert p2pnode("id", "passphrase", home=home, env={"P2PNODE_NEW_PASSPHRASE": "correct horse"}).code == 0
    assert "P2PNODE_PASSPHRASE" in one_sentence(p2pnode("id", home=home))
    wrong = one_sentence(p2pnode("id", home=home, env={"P2PNODE_PASSPHRASE": "battery staple"}))
    assert "Wrong passphrase" in wrong
    assert "battery" not in wrong
    file = tmp_path / "passphrase"
    file.write_text("correct horse\n")
    assert p2pnode("--passphrase-file", str(file), "id", "--json", home=home).json == ids
    env = {"P2PNODE_PASSPHRASE": "correct horse"}
    assert p2pnode("id", "passphrase", "--remove", home=home, env=env).code == 0
    assert p2pnode("id", "--json", home=home).json == ids


def test_passphrase_is_no_option() -> None:
    """A passphrase on the command line would stand in every process list."""
    assert p2pnode("--passphrase", "x", "id").code == 2


@pytest.mark.parametrize(
    "command", [["find"], ["connect"], ["ping"], ["history"], ["contacts", "add"], ["contacts", "verify"]], ids=" ".join
)
@pytest.mark.parametrize("peer", [USER[:-1] + "9", "12D3KooW", "a/b", PEER + "@nowhere:0"])
def test_malformed_peer_is_refused_before_anything_else(command: list[str], peer: str, tmp_path: Path) -> None:
    """Exit 1 and one sentence, whether or not a node runs; JSON when asked for."""
    one_sentence(p2pnode(*command, peer, home=tmp_path / "h"))
    result = p2pnode(*command, peer, "--json", home=tmp_path / "h")
    assert result.code == 1
    assert result.json["error"]["code"] == "invalid_peer"


@pytest.mark.parametrize(
    "command",
    [["status"], ["peers"], ["find", PEER], ["connect", PEER], ["ping", PEER], ["ping", "localhost", "4747"],
     ["send", PEER, "hi"], ["messages", "--follow"], ["contacts", "add", PEER]],
    ids=" ".join,
)  # fmt: skip
def test_commands_that_need_a_node_say_so(command: list[str], tmp_path: Path) -> None:
    """`not_running`, with what to type."""
    assert "p2pnode join" in one_sentence(p2pnode(*command, home=tmp_path / "h"))
    assert p2pnode(*command, "--json", home=tmp_path / "h").json["error"]["code"] == "not_running"


def test_reading_works_without_a_node(tmp_path: Path) -> None:
    """An empty home has no messages and no contacts, and reading creates no database."""
    home = tmp_path / "h"
    assert p2pnode("messages", "--json", home=home).json == {"messages": []}
    assert p2pnode("history", PEER, "--json", home=home).json == {"messages": []}
    assert p2pnode("contacts", "list", "--json", home=home).json == {"contacts": []}
    assert not (home / "chat.db").exists()


def test_unknown_name_is_not_found(tmp_path: Path) -> None:
    """A name that no contact has."""
    result = p2pnode("history", "nobody", "--json", home=tmp_path / "h")
    assert result.code == 1
    assert result.json["error"]["code"] == "peer_not_found"


def test_message_over_the_limit_is_refused(tmp_path: Path) -> None:
    """15,000 bytes are enough for everybody; the sentence names the size."""
    assert "15,001 bytes" in one_sentence(p2pnode("send", PEER, "x" * 15_001, home=tmp_path / "h"))


def test_wrong_setting_names_file_line_and_key(tmp_path: Path) -> None:
    """Exit 2, and the place."""
    (tmp_path / "config.toml").write_text('name = "a"\nidle-timeout = "soon"\n')
    for command in (["config", "check"], ["config", "show"], ["id"], ["join"], ["status"]):
        sentence = one_sentence(p2pnode(*command, home=tmp_path), 2)
        assert f"{tmp_path / 'config.toml'}, line 2: idle-timeout: " in sentence


def test_config_show_tells_value_and_origin(tmp_path: Path) -> None:
    """Each value with where it came from."""
    (tmp_path / "config.toml").write_text("lan = false\n")
    result = p2pnode("config", "show", "--json", home=tmp_path, env={"P2PNODE_NETWORK": "lab"})
    settings = result.json["settings"]
    assert settings["lan"]["value"] is False
    assert settings["lan"]["place"].endswith("config.toml, line 1")
    assert settings["network"] == {"value": "lab", "origin": "environment", "place": "P2PNODE_NETWORK"}
    assert settings["listen"]["origin"] == "default"


@pytest.mark.parametrize(
    "options",
    [["--listen", "nowhere"], ["--listen", "0.0.0.0:99999"], ["--listen", "1.2.3.4:1", "--listen", "1.2.3.5:1"],
     ["--idle-timeout", "x"], ["--bootstrap", "alice"], ["--bootstrap", USER + "@h:1"], ["--name", "a/b"],
     ["--network", ""], ["a", "localhost", "x"], ["a", "localhost", "0"], ["a", "-u", "b"], ["-sip", "127.0.0.1"]],
    ids=" ".join,
)  # fmt: skip
def test_wrong_option_of_join_is_wrong_usage(options: list[str], tmp_path: Path) -> None:
    """Exit 2 before anything is started."""
    one_sentence(p2pnode("join", "--headless", *options, home=tmp_path / "h"), 2)
    assert not (tmp_path / "h").exists()


def test_home_in_use_is_one_sentence(tmp_path: Path) -> None:
    """A second process on the same home is refused with the first one's number."""
    from p2pnode import Home

    with Home(tmp_path).locked():
        sentence = one_sentence(p2pnode("join", "--headless", "--no-lan", home=tmp_path))
    assert f"process {os.getpid()}" in sentence


def test_doctor_finds_what_is_wrong(tmp_path: Path) -> None:
    """Each wrong thing has a line and a way out; exit 1."""
    p2pnode("id", home=tmp_path / "h")
    home = tmp_path / "h"
    home.chmod(0o777)
    (home / "node.key").chmod(0o644)
    (home / "chat.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        (home / "config.toml").write_text(f'listen = ["127.0.0.1:{port}"]\nlan = false\n')
        result = p2pnode("doctor", "--json", home=home)
    assert result.code == 1
    assert result.json["ok"] is False
    wrong = {check["check"]: check["advice"] for check in result.json["checks"] if check["ok"] is False}
    assert set(wrong) == {"home", "key", "database", "port"}
    assert all(wrong.values())
    assert wrong["key"].startswith("chmod 600 ")


def test_doctor_is_content_with_a_good_home(tmp_path: Path) -> None:
    """Exit 0, and human lines begin with the verdict."""
    p2pnode("id", home=tmp_path / "h")
    (tmp_path / "h" / "config.toml").write_text('listen = ["127.0.0.1:0"]\nlan = false\n')
    result = p2pnode("doctor", home=tmp_path / "h")
    assert result.code == 0, result
    assert all(line.startswith(("ok ", "unknown ", "  ")) for line in result.out.splitlines())


def test_doctor_names_a_wrong_setting(tmp_path: Path) -> None:
    """A wrong config.toml does not keep doctor from looking at the rest."""
    (tmp_path / "config.toml").write_text("lan = 3\n")
    result = p2pnode("doctor", "--json", home=tmp_path)
    assert result.code == 1
    assert any("line 1" in check["message"] for check in result.json["checks"])

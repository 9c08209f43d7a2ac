"""Settings: where they come from, and what a wrong one says."""

from pathlib import Path

import pytest

from p2pnode import Address, Config, InvalidConfigError
from p2pnode.cli.commands_run import settings_of

PEER = "12D3KooWPK7MsXCzqaJX1zWetqBFaLs9JA2pfjfMgmf6wHNeDBCE"


def load(tmp_path: Path, text: str = "", env: dict[str, str] | None = None, **command_line: object) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return Config.load(path, environ=env or {}, command_line=command_line)


def test_command_line_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    """Each source hides the weaker ones, and the origin says which it was."""
    config = load(tmp_path)
    assert (config["network"], config.settings["network"].origin) == ("public", "default")
    config = load(tmp_path, 'network = "file"')
    assert (config["network"], config.settings["network"].origin) == ("file", "file")
    config = load(tmp_path, 'network = "file"', {"P2PNODE_NETWORK": "env"})
    assert (config["network"], config.settings["network"].origin) == ("env", "environment")
    config = load(tmp_path, 'network = "file"', {"P2PNODE_NETWORK": "env"}, network="line")
    assert (config["network"], config.settings["network"].origin) == ("line", "command line")
    assert config.explicit("network")
    assert not config.explicit("lan")


def test_file_setting_names_its_line(tmp_path: Path) -> None:
    """`config show` can point at the line."""
    config = load(tmp_path, '# mine\n\nname = "alice"\n')
    assert config.settings["name"].place == f"{tmp_path / 'config.toml'}, line 3"


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("lan = 3", 1, "lan"),
        ('# x\nidle-timeout = "soon"', 2, "idle-timeout"),
        ("idle_timeout = 0", 1, "idle_timeout"),
        ('name = "a"\nlisten = [\n  "0.0.0.0:4747",\n  "nowhere:1"\n]', 2, "listen"),
        ('bootstrap = ["alice"]', 1, "bootstrap"),
        ('log-level = "loud"', 1, "log-level"),
        ("count = 1.5", 1, "count"),
        ("wait = -1", 1, "wait"),
        ("wait = nan", 1, "wait"),
        ("name = ", 1, "name"),
        ('name = "a"\nname = "b"', 2, "name"),
        ("[node]\nname = 'a'", 1, "node"),
        ("listne = 3", 1, "listne"),
        ("lan = true\nno-lan = true", 2, "no-lan"),
        ('network = ""', 1, "network"),
        ('name = "a\\u0007b"', 1, "name"),
    ],
)  # fmt: skip
def test_wrong_value_names_file_line_and_key(tmp_path: Path, text: str, line: int, key: str) -> None:
    """A wrong value in config.toml is one sentence with its place."""
    with pytest.raises(InvalidConfigError) as caught:
        load(tmp_path, text)
    assert f"config.toml, line {line}: " in caught.value.message
    assert key in caught.value.message
    assert caught.value.message.count("\n") == 0


def test_value_outside_utf8_is_one_sentence(tmp_path: Path) -> None:
    """Bytes that are not text are refused with their line."""
    path = tmp_path / "config.toml"
    path.write_bytes(b'name = "a"\nnetwork = "\xff"\n')
    with pytest.raises(InvalidConfigError, match="line 2: not UTF-8"):
        Config.load(path, environ={})


def test_wrong_environment_and_option_are_named(tmp_path: Path) -> None:
    """Not only the file: a variable and an option are named as well."""
    with pytest.raises(InvalidConfigError, match=r"^P2PNODE_LAN: "):
        load(tmp_path, env={"P2PNODE_LAN": "perhaps"})
    with pytest.raises(InvalidConfigError, match=r"^--listen: "):
        load(tmp_path, listen=["somewhere"])


def test_mistyped_key_is_suggested(tmp_path: Path) -> None:
    """A key that is nearly right is named."""
    with pytest.raises(InvalidConfigError, match="did you mean bootstrap"):
        load(tmp_path, "bootstrp = []")


def test_flags_can_be_negated_everywhere(tmp_path: Path) -> None:
    """`lan = false`, `no-lan = true`, P2PNODE_LAN=0 and P2PNODE_NO_LAN=1 say the same."""
    assert not load(tmp_path, "lan = false")["lan"]
    assert not load(tmp_path, "no_lan = true")["lan"]
    assert not load(tmp_path, env={"P2PNODE_LAN": "0"})["lan"]
    assert not load(tmp_path, env={"P2PNODE_NO_LAN": "yes"})["lan"]
    assert not load(tmp_path, lan=False)["lan"]


def test_lists_come_from_every_source(tmp_path: Path) -> None:
    """A list is an array in TOML, words in the environment, repetition on the command line."""
    hosts = f"{PEER}@127.0.0.1:1 {PEER}@[::1]:2"
    assert len(load(tmp_path, env={"P2PNODE_BOOTSTRAP": hosts})["bootstrap"]) == 2
    assert len(load(tmp_path, f'bootstrap = ["{PEER}@localhost:1"]')["bootstrap"]) == 1
    assert len(load(tmp_path, bootstrap=hosts.split())["bootstrap"]) == 2


def test_bare_port_listens_on_both_families(tmp_path: Path) -> None:
    """`--listen 4000` means everywhere."""
    assert load(tmp_path, listen=["4000"])["listen"] == (Address("0.0.0.0", 4000), Address("::", 4000))
    assert load(tmp_path, listen=["localhost:5"])["listen"] == (Address("127.0.0.1", 5),)


def test_settings_are_shown_as_they_are_written(tmp_path: Path) -> None:
    """What `config show` prints can be put into config.toml."""
    config = load(tmp_path, listen=["127.0.0.1:5"], bootstrap=[f"{PEER}@h:1"])
    assert config.settings["listen"].shown == ["127.0.0.1:5"]
    assert config.settings["bootstrap"].shown == [f"{PEER}@h:1"]


@pytest.mark.parametrize(("value", "bootstrap", "peer"), [("auto", "R", ""), ("yes", "R", "R"), ("no", "", "")])
def test_only_bootstrap_nodes_keep_records_unless_told_otherwise(value: str, bootstrap: str, peer: str) -> None:
    """`keep-records`, here from the environment, decides whether a node gets the file."""
    config = Config.load(None, environ={"P2PNODE_KEEP_RECORDS": value})
    for role, expected in (("bootstrap", bootstrap), ("peer", peer)):
        assert settings_of(config, role, network_secret="", records_db="R").record_file == expected

"""What a scenario's settings may be is told, read, and refused with key, value and allowed range."""

import pytest
from support import tiny_scenario
from support.tiny_scenario import SCENARIO

from p2pnode.simulations.harness.errors import SettingError
from p2pnode.simulations.harness.settings import (
    describe,
    nearest,
    read_nodes,
    read_seed,
    read_settings,
    show,
    split_pair,
)


def test_settings_are_described_own_ones_first() -> None:
    """Name, allowed values in words, default as typed, and the description; the network's settings come last."""
    infos = describe(tiny_scenario.Settings)
    assert list(infos)[:2] == ["steps", "spin_s"]
    assert list(infos)[-4:] == ["delay_min_ms", "delay_max_ms", "loss", "real_keys"]
    assert infos["steps"].allowed == "a whole number from 1 to 100,000"
    assert infos["spin_s"].allowed == "a number of 0 or more"
    assert infos["careful"].allowed == "true or false"
    assert infos["sizes"].allowed == "a list with commas, each a whole number of 1 or more"
    assert infos["sizes"].many
    assert infos["most"].allowed == "a number of 0 or more or none"
    assert infos["ends"].allowed.startswith("one of ")
    assert {name: info.default for name, info in infos.items()} == {
        "steps": "20", "spin_s": "0", "sizes": "1,2", "careful": "true", "most": "none", "ends": "well",
        "delay_min_ms": "25", "delay_max_ms": "75", "loss": "0.05", "real_keys": "false",
    }  # fmt: skip
    assert infos["loss"].description == "share of datagrams lost"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("steps", "7", 7),
        ("loss", "0.2", 0.2),
        ("loss", "1", 1.0),
        ("careful", "no", False),
        ("careful", "TRUE", True),
        ("careful", "off", False),
        ("sizes", "3, 4,5", (3, 4, 5)),
        ("most", "none", None),
        ("most", "2.5", 2.5),
        ("ends", "late", "late"),
    ],
)
def test_texts_become_values(name: str, text: str, value: object) -> None:
    """Each kind of setting is read, and shown again as one would type it."""
    found = getattr(read_settings(SCENARIO, {name: text}), name)
    assert found == value
    assert type(found) is type(value)
    assert getattr(read_settings(SCENARIO, {name: show(found)}), name) == value


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("steps", "0", "from 1 to 100,000"),
        ("steps", "100001", "from 1 to 100,000"),
        ("steps", "1.5", "whole number"),
        ("steps", "", "whole number"),
        ("steps", "9" * 400, "whole number"),
        ("loss", "1.01", "from 0 to 1"),
        ("loss", "nan", "from 0 to 1"),
        ("spin_s", "inf", "of 0 or more"),
        ("spin_s", "-1", "of 0 or more"),
        ("careful", "perhaps", "true or false"),
        ("sizes", "1,x", "with commas"),
        ("sizes", "0", "1 or more"),
        ("ends", "badly", "one of deadlock, error"),
        ("loss", "0" * 5000, "from 0 to 1"),
    ],
)
def test_impossible_values_name_key_value_and_range(name: str, text: str, allowed: str) -> None:
    """The sentence can be acted upon without looking anything up."""
    with pytest.raises(SettingError) as caught:
        read_settings(SCENARIO, {name: text})
    message = caught.value.message
    assert message.startswith(f"--set {name}={text[:60]}")
    assert allowed in message
    assert len(message) < 300


def test_settings_must_fit_each_other() -> None:
    """The class's own check of the whole speaks, with what was typed."""
    with pytest.raises(SettingError, match="delay_min_ms=80: delay_max_ms is below delay_min_ms"):
        read_settings(SCENARIO, {"delay_min_ms": "80"})
    assert read_settings(SCENARIO, {"delay_min_ms": "80", "delay_max_ms": "90"}).delay_max_ms == 90


def test_unknown_setting_suggests_the_nearest_or_lists_all() -> None:
    """A typo gets the name; anything else gets the list; nodes and seed are options."""
    with pytest.raises(SettingError, match="Did you mean 'steps'"):
        read_settings(SCENARIO, {"setps": "1"})
    with pytest.raises(SettingError, match="It has steps, spin_s"):
        read_settings(SCENARIO, {"zzzzz": "1"})
    with pytest.raises(SettingError, match="--nodes"):
        read_settings(SCENARIO, {"nodes": "1"})
    assert nearest("lokup", ["lookup", "churn"]) == " Did you mean 'lookup'?"
    assert nearest("zzz", ["lookup", "churn"]) == ""


@pytest.mark.parametrize("text", ["0", "5001", "-3", "x", "", "1e3", "9" * 50, "٣"])
def test_nodes_are_limited_by_the_scenario(text: str) -> None:
    """Above its limit, below, or no number."""
    with pytest.raises(SettingError, match="from 1 to 5,000"):
        read_nodes(SCENARIO, text)


def test_defaults_and_limits_of_nodes_and_seed() -> None:
    """The scenario's own number of nodes; seed 1; both ends of both ranges."""
    assert (read_nodes(SCENARIO, None), read_seed(None)) == (10, 1)
    assert (read_nodes(SCENARIO, "5000"), read_seed("0"), read_seed(str(2**63 - 1))) == (5000, 0, 2**63 - 1)
    with pytest.raises(SettingError, match="--seed"):
        read_seed(str(2**63))


def test_pairs_are_split_at_the_first_sign() -> None:
    """`--set key=value`: values may hold the sign, dashes in names become underscores."""
    assert split_pair("--set", "delay-min-ms = 3") == ("delay_min_ms", "3")
    assert split_pair("--set", "a=b=c") == ("a", "b=c")
    for wrong in ("loss", "=3", ""):
        with pytest.raises(SettingError, match="KEY=VALUE"):
            split_pair("--set", wrong)

"""``dlzoo models``, ``info`` and ``doctor``."""

import json

from tests.support.dlzoo_process import run_dlzoo


def test_models_lists_every_card_once() -> None:
    done = run_dlzoo("models", "--json")
    assert done.returncode == 0, done.stderr
    cards = json.loads(done.stdout)
    names = [card["name"] for card in cards]
    assert len(names) == len(set(names)) == 31
    years = [card["paper"]["year"] for card in cards if card["family"] == "VGG"]
    assert years and set(years) == {2014}


def test_models_is_a_line_each_in_80_columns() -> None:
    done = run_dlzoo("models")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("resnet50 ") for line in lines) == 1


def test_info_agrees_with_the_paper() -> None:
    done = run_dlzoo("info", "lenet5", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    counts = [layer["num_parameters"] for layer in facts["layers"] if layer["num_parameters"]]
    # LeCun et al. 1998, section II.B.
    assert counts == [156, 12, 1516, 32, 48120, 10164]
    assert facts["num_trainable_parameters"] == 60_000


def test_info_fits_80_columns() -> None:
    done = run_dlzoo("info", "vgg16")
    assert "138,357,544" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_doctor_finds_this_machine_able() -> None:
    done = run_dlzoo("doctor", "--json")
    assert done.returncode == 0, done.stdout
    subjects = {finding["subject"]: finding["status"] for finding in json.loads(done.stdout)}
    assert subjects["provider cpu"] == "ok"

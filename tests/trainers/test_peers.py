import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.trainers.made_up_contests import WORKER, planned
from trainers import _benchmark_input
from trainers._peers import PEERS, chosen_peers, left_out_by


def values(peers):
    return SimpleNamespace(peers=peers)


def test_who_needs_a_peer_that_is_not_named_is_left_out():
    needs = {"a": (), "b": ("timm",), "c": ("timm", "openvino"), "d": ("onnxruntime",)}
    assert left_out_by(values(None), needs) == {}
    assert left_out_by(values(["timm"]), needs) == {
        "c": "--peers is without openvino",
        "d": "--peers is without onnxruntime",
    }
    assert left_out_by(values([]), needs)["c"] == "--peers is without timm and openvino"
    assert chosen_peers(values(None)) == PEERS


def test_refuses_peers_that_it_does_not_know():
    with pytest.raises(ValueError, match="Did you mean 'openvino'.*peers='opnvino'"):
        chosen_peers(values(["timm", "opnvino"]))
    with pytest.raises(ValueError, match="`peers` must be different.*'timm,timm'"):
        chosen_peers(values(["timm", "timm"]))


def test_one_that_is_left_out_is_named_and_never_loaded(
    monkeypatch, tmp_path, run_program
):
    output = planned(
        monkeypatch, tmp_path, "input", {"ours": WORKER, "timm": "broken("}
    )
    made = _benchmark_input.plan

    def plan(*arguments):
        ours, timm = (whole := made(*arguments)).contestants
        return replace(whole, contestants=(ours, replace(timm, peers=("timm",))))

    monkeypatch.setattr("trainers._benchmark_input.plan", plan)
    given = ("--quick", "--rounds=1", f"--output={output}")
    done = run_program("benchmark", "--peers=openvino", *given)
    assert done.code == 0, done.err
    assert "timm is left out: --peers is without timm" in done.out
    record = json.loads(output.read_text())
    assert record["left_out"] == {"timm": "--peers is without timm"}
    assert list(record["packages"]) == ["ours"]
    done = run_program("benchmark", *given)
    assert done.code == 1  # all take part unless peers are named


def test_the_peers_are_who_needs_them(monkeypatch, tmp_path):
    monkeypatch.setattr(_benchmark_input, "fill_with_images", lambda *a: "images")
    plan = _benchmark_input.plan(
        SimpleNamespace(peer_python=None, dataset=None), {"batch_size": 8}, tmp_path
    )
    assert {c.name: c.peers for c in plan.contestants} == {
        **{"keras_deit": (), "keras_deit, keras-cv": ()},
        **{"timm": ("timm",), "timm, bytes": ("timm",)},
    }

"""The command line, as a user calls it."""

import json
import signal
import subprocess
import sys
import time

import pytest

from proxsparse import Run


def proxsparse(*arguments, **keywords):
    command = [sys.executable, "-m", "proxsparse", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **keywords)


def until(condition, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def small(tiny_directory, text_file):
    """Flags of a run that takes seconds."""
    return (
        "--model", tiny_directory, "--corpus", text_file, "--length", 16, "--context", 32, "--windows", 6,
        "--live-windows", 2, "--metric-windows", 2, "--steps", 6, "--checkpoint-every", 3, "--learning-rate", 0.01,
    )  # fmt: skip


def test_from_learning_to_proof(small, tmp_path, text_file, tiny_directory):
    out = tmp_path / "runs" / "first"
    learned = proxsparse("learn", *small, "--out", out, "--json")
    assert learned.returncode == 0, learned.stderr
    result = json.loads(learned.stdout)
    assert result["status"] == "done" and result["step"] == 6
    assert set(result["perplexity"]) == {"dense", "magnitude", "learned"}

    listed = proxsparse("runs", "--root", out.parent)
    assert "first" in listed.stdout and "done" in listed.stdout

    exported = proxsparse("export", out, "--to", tmp_path / "sparse")
    assert exported.returncode == 0 and "Proven" in exported.stdout and "model.safetensors" in exported.stdout
    verified = proxsparse("verify", tmp_path / "sparse", "--json")
    report = json.loads(verified.stdout)
    assert verified.returncode == 0 and report["ok"] and len(report["layers"]) == 14

    measured = proxsparse("eval", tmp_path / "sparse", "--corpus", text_file, "--context", 32, "--windows", 6, "--json")
    assert json.loads(measured.stdout)["value"] == pytest.approx(
        result["perplexity"]["learned"]["perplexity"], rel=1e-3
    )

    again = proxsparse("export", out, "--to", tmp_path / "sparse")
    assert again.returncode == 2 and "is not empty" in again.stderr
    assert proxsparse("resume", out).returncode == 2
    forked = proxsparse("fork", out, "--steps", 8, "--lambda1", 0.3, "--out", tmp_path / "runs" / "fork")
    assert forked.returncode == 0, forked.stderr
    assert "done at step 8 of 8" in forked.stdout
    assert Run(tmp_path / "runs" / "fork").table("steps")["lambda1"].tolist()[6:] == [0.3, 0.3]


def test_interrupted_it_stops_with_a_checkpoint_and_goes_on(small, tmp_path):
    out = tmp_path / "stopped"
    command = [sys.executable, "-m", "proxsparse", "learn", *map(str, small), "--steps", "400", "--out", str(out)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores Ctrl-C
    )
    until(lambda: (out / "state.json").exists() and Run(out).state()["step"] >= 2)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130 and "resume" in stdout, stderr
    run = Run(out)
    assert run.state()["status"] == "stopped" and max(run.checkpoints()) == run.state()["step"]
    detached = proxsparse("resume", out, "--detach")
    assert detached.returncode == 0 and run.state()["status"] != "stopped", "--detach returns while the worker goes on"
    until(lambda: run.state()["status"] == "running")
    assert proxsparse("send", out, "set", "--lambda1", "0.2").returncode == 0
    until(lambda: run.state()["lambda1"] == 0.2)
    assert proxsparse("send", out, "stop").returncode == 0
    until(lambda: run.state()["status"] == "stopped")


def test_a_changed_weight_is_found(small, tmp_path, tiny_directory):
    import torch
    from safetensors.torch import load_file, save_file

    from proxsparse import export_model, load_model, magnitude, prunable_layers, verify

    lm = load_model(str(tiny_directory))
    target = tmp_path / "sparse"
    export_model(lm, magnitude(prunable_layers(lm.model)), target)
    assert verify(target).ok
    weights = load_file(target / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"

    def damaged(change):
        tensors = {key: tensor.clone() for key, tensor in weights.items()}
        change(tensors)
        save_file(tensors, target / "model.safetensors", {"format": "pt"})
        return proxsparse("verify", target)

    def fill_a_group(tensors):
        tensors[name][0, :4] = 1.0

    def nudge_a_kept_weight(tensors):
        column = tensors[name][3].nonzero()[0]
        tensors[name][3, column] = torch.nextafter(tensors[name][3, column], torch.tensor(9.0))

    def touch_a_norm(tensors):
        tensors["model.norm.weight"][0] += 1

    for change, words in (
        (fill_a_group, "1 groups are not 2:4"), (nudge_a_kept_weight, "1 kept weights differ"), (touch_a_norm, "model.norm.weight"),
    ):  # fmt: skip
        found = damaged(change)
        assert found.returncode == 1 and "Not proven" in found.stdout and words in found.stdout
    damaged(lambda tensors: None)
    assert verify(target).ok


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("learn", "--lambda1", "x"), "'x' is not a number"),
        (("learn", "--lambda1", "-1"), "lambda1 is -1: give 0 or more"),
        (("learn", "--learning-rate", "0"), "learning-rate is 0"),
        (("learn", "--steps", "1.5"), "'1.5' is not a whole number"),
        (("learn", "--metric", "size"), "invalid choice: 'size'"),
        (("learn", "--out", "tests"), "exists and is not empty"),
        (("learn", "--model", "./nothing", "--out", "{tmp}/a"), "There is no directory './nothing'"),
        (("learn", "--model", "nobody/nothing", "--out", "{tmp}/b"), "cannot be reached"),
        (
            (
                "learn",
                "--model",
                "{tiny}",
                "--corpus",
                "missing.txt",
                "--length",
                "16",
                "--context",
                "32",
                "--out",
                "{tmp}/c",
            ),
            "There is no file 'missing.txt'",
        ),
        (("learn", "--model", "{tiny}", "--corpus", "{text}", "--length", "100", "--out", "{tmp}/d"), "length is 100"),
        (("eval", "{tiny}", "--corpus", "{text}", "--context", "100"), "the model reads at most 64"),
        (("eval", "{tiny}", "--corpus", "{binary}", "--context", "32"), "is not text"),
        (("eval", "{tiny}", "--windows", "-1"), "windows is -1"),
        (("verify", "{tmp}"), "holds no masks.safetensors"),
        (("resume", "{tmp}"), "There is no run"),
        (("export", "{tmp}", "--to", "{tmp}/e"), "There is no run"),
        (("send", "{tmp}", "pause"), "There is no run"),
        (("dance",), "invalid choice: 'dance'"),
        ((), "required: COMMAND"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, tmp_path, tiny_directory, text_file):
    binary = tmp_path / "binary.txt"
    binary.write_bytes(bytes(range(256)))
    places = {"tmp": tmp_path, "tiny": tiny_directory, "text": text_file, "binary": binary}
    found = proxsparse(*(str(argument).format(**places) for argument in arguments))
    assert found.returncode == 2, found.stderr
    error = next(line for line in found.stderr.splitlines() if "error: " in line)
    assert words in error and "Traceback" not in found.stderr


def test_help_is_worth_reading_and_light():
    found = proxsparse("learn", "--help", env={"PYTHONPATH": ".", "PATH": "/usr/bin"})
    text = " ".join(found.stdout.split())
    assert "--lambda1 FLOAT strength of the 2:4 regularizer" in text and "(default 0.02)" in text
    assert "python -m proxsparse learn --model embedded" in text
    script = (
        "import sys; from proxsparse.cli.main import build_parser; build_parser(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0, "--help does not wait for torch"

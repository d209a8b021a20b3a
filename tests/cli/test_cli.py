"""The command line, as a user calls it."""

import json
import signal
import subprocess
import sys

import pytest
from waiting import until

from proxsparse import Run
from proxsparse.cli import main

TINY = ("--model", "{tiny}", "--corpus", "{text}", "--length", "16", "--context", "32")


def proxsparse(*arguments, **keywords):
    command = [sys.executable, "-m", "proxsparse", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **keywords)


@pytest.fixture(scope="module")
def small(tiny_directory, text_file):
    """Flags of a run that takes seconds."""
    return (
        "--model", tiny_directory, "--corpus", text_file, "--length", 16, "--context", 32, "--windows", 6,
        "--live-windows", 2, "--metric-windows", 2, "--steps", 6, "--checkpoint-every", 3, "--learning-rate", 0.01,
    )  # fmt: skip


def test_from_learning_to_proof(small, tmp_path, text_file, command):
    out = tmp_path / "runs" / "first"
    learned = proxsparse("learn", *small, "--out", out, "--json")
    assert learned.returncode == 0, learned.stderr
    result = json.loads(learned.stdout)
    assert result["status"] == "done" and result["step"] == 6
    lines = learned.stderr.splitlines()
    assert "\r" not in learned.stderr and lines[-1].startswith("6/6  done, "), "in a pipe, lines"
    assert set(result["perplexity"]) == {"dense", "magnitude", "learned"}

    listed = command("runs", "--root", out.parent)
    assert "first" in listed.stdout and "done" in listed.stdout

    exported = command("export", out, "--to", tmp_path / "sparse")
    assert exported.returncode == 0 and "Proven" in exported.stdout and "model.safetensors" in exported.stdout
    streamed = command("export", out, "--to", tmp_path / "streamed", "--stream")
    assert streamed.returncode == 0, streamed.stderr
    written = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("sparse", "streamed")]
    assert written[0] == written[1]
    refused = command("export", out, "--to", tmp_path / "compact", "--stream", "--format", "compact")
    assert refused.returncode == 2 and "A compact export cannot be streamed" in refused.stderr
    verified = command("verify", tmp_path / "sparse", "--json")
    report = json.loads(verified.stdout)
    assert verified.returncode == 0 and report["ok"] and len(report["layers"]) == 14

    measured = command("eval", tmp_path / "sparse", "--corpus", text_file, "--context", 32, "--windows", 6, "--json")
    assert json.loads(measured.stdout)["value"] == pytest.approx(
        result["perplexity"]["learned"]["perplexity"], rel=1e-3
    )

    tried = json.loads(command("try", out, "--prompt", "ABCD", "--new-tokens", 4, "--json").stdout)
    assert set(tried["models"]) == {"dense", "magnitude", "wanda", "learned"} and tried["step"] == 6
    assert len(tried["models"]["dense"]["next"]) == 10
    refused = command("try", out, "--prompt", "ABCD", "--step", 999)
    assert refused.returncode == 2 and "no masks of step 999" in refused.stderr

    again = command("export", out, "--to", tmp_path / "sparse")
    assert again.returncode == 2 and "is not empty" in again.stderr
    assert command("resume", out).returncode == 2
    forked = command("fork", out, "--steps", 8, "--lambda1", 0.3, "--out", tmp_path / "runs" / "fork")
    assert forked.returncode == 0, forked.stderr
    assert "done at step 8 of 8" in forked.stdout
    assert Run(tmp_path / "runs" / "fork").table("steps")["lambda1"].tolist()[6:] == [0.3, 0.3]


@pytest.mark.parametrize(("n", "m"), [(1, 4), (4, 8)])
def test_another_pattern_from_learning_to_proof(n, m, small, tmp_path, capsys, command):
    out, target = tmp_path / "run", tmp_path / "sparse"
    learned = command("learn", *small, "--n", n, "--m", m, "--out", out, "--json")
    assert learned.returncode == 0, learned.stderr
    perplexity = json.loads(learned.stdout)["perplexity"]
    steps, layers = Run(out).table("steps"), Run(out).table("layers")
    shares = [f"nonzeros_{k}" for k in range(n - 1, m + 1)]
    assert sorted(name for name in steps if name.startswith("nonzeros_")) == shares
    assert steps[shares].sum(axis=1).tolist() == pytest.approx([1] * 6) and set(shares) <= set(layers)

    assert main(["export", str(out), "--to", str(target)]) == 0
    assert f"groups of 14 layers are {n}:{m}, and every kept weight equals" in capsys.readouterr().out
    assert main(["verify", str(target), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] and report["pattern"] == f"{n}:{m}"
    assert {layer["rows"] * layer["columns"] for layer in report["layers"]} == {
        layer["groups"] * m for layer in report["layers"]
    }
    card = (target / "README.md").read_text()
    assert f"At most {n} of every {m} consecutive input weights" in card
    assert ("A 1:4 mask is 2:4 as well" if (n, m) == (1, 4) else "No kernel that we know of runs 4:8 faster") in card
    (row,) = (line for line in card.splitlines() if line.startswith("| learned"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[:4] == ["learned", "text.txt", "text.txt, held-out part", "6 × 32 tokens"]
    assert cells[4].startswith(f"{perplexity['learned']['perplexity']:.2f} ± ")
    assert main(["fork", str(out), "--n", "2", "--m", "4", "--out", str(tmp_path / "fork")]) == 2
    assert f"n is {n} in run run, whose checkpoint and records depend on it" in capsys.readouterr().err


def test_layers_that_groups_do_not_divide_stay_dense(small, tmp_path, capsys, command):
    out, target = tmp_path / "run", tmp_path / "sparse"
    learned = command("learn", *small, "--n", 1, "--m", 64, "--steps", 2, "--out", out)
    assert learned.returncode == 0, learned.stderr
    reason = "input dimension 32 is not a multiple of 64"
    assert f"left dense: 12 linear maps, e.g. model.layers.0.self_attn.q_proj ({reason})" in learned.stdout
    run = Run(out)
    assert set(run.skipped().values()) == {reason} and run.layers()["projection"].tolist() == ["down_proj"] * 2
    assert main(["export", str(out), "--to", str(target)]) == 0
    said = capsys.readouterr().out
    assert "of 2 layers are 1:64" in said and "everything outside these layers is unchanged" in said


def test_interrupted_it_stops_with_a_checkpoint_and_goes_on(small, tmp_path, command):
    out = tmp_path / "stopped"
    learn = [sys.executable, "-m", "proxsparse", "learn", *map(str, small), "--steps", "400", "--out", str(out)]
    process = subprocess.Popen(
        learn,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores Ctrl-C
    )
    until(lambda: (out / "run.json").exists() and Run(out).state()["step"] >= 2)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130 and "resume" in stdout, stderr
    run = Run(out)
    assert run.state()["status"] == "stopped" and max(run.checkpoints()) == run.state()["step"]
    detached = proxsparse("resume", out, "--detach")
    assert detached.returncode == 0 and run.state()["status"] != "stopped", "--detach returns while the worker goes on"
    until(lambda: run.state()["status"] == "running")
    assert command("send", out, "set", "--lambda1", "0.2").returncode == 0
    until(lambda: "lambda1" in run.table("events") and (run.table("events")["lambda1"] == 0.2).any())
    assert command("send", out, "stop").returncode == 0
    until(lambda: run.state()["status"] == "stopped")


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8)])
def test_a_changed_weight_is_found(n, m, tmp_path, tiny_directory, capsys):
    import torch
    from safetensors.torch import load_file, save_file

    from proxsparse import export_model, load_model, magnitude, verify

    lm = load_model(str(tiny_directory))
    target = tmp_path / "sparse"
    export_model(lm, magnitude(lm.model, None, n, m).masks, target)
    assert verify(target).ok
    weights = load_file(target / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"

    def damaged(change):
        tensors = {key: tensor.clone() for key, tensor in weights.items()}
        change(tensors)
        save_file(tensors, target / "model.safetensors", {"format": "pt"})
        return main(["verify", str(target)]), capsys.readouterr().out

    def fill_a_group(tensors):
        tensors[name][0, :m] = 1.0

    def nudge_a_kept_weight(tensors):
        column = tensors[name][3].nonzero()[0]
        tensors[name][3, column] = torch.nextafter(tensors[name][3, column], torch.tensor(9.0))

    def touch_a_norm(tensors):
        tensors["model.norm.weight"][0] += 1

    layer = name.removesuffix(".weight")
    for change, words, line in (
        (fill_a_group, f"1 groups are not {n}:{m}", f"{layer}  1 bad groups"),
        (nudge_a_kept_weight, "1 kept weights differ", f"{layer}  0 bad groups, 1 changed weights"),
        (touch_a_norm, "model.norm.weight", "model.norm.weight  not as in the original"),
    ):
        code, said = damaged(change)
        verdict, *lines = said.splitlines()
        assert code == 1 and verdict.startswith("Not proven") and words in verdict
        (shown,) = lines  # what is proven needs no line of its own
        assert all(word in shown for word in line.split("  ")), shown
    code, said = damaged(lambda tensors: None)
    (verdict,) = said.splitlines()
    assert code == 0 and f"are {n}:{m}, and every kept weight equals" in verdict
    assert main(["verify", str(target), "--layers"]) == 0
    verdict, *lines = capsys.readouterr().out.splitlines()
    assert verdict.startswith("Proven") and len(lines) == 14 and all(line.endswith("groups  ok") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("learn", "--lambda1", "x"), "lambda1 is 'x': give a number"),
        (("learn", "--lambda1", "-1"), "lambda1 is -1: give 0 or more"),
        (("learn", "--learning-rate", "0"), "learning-rate is 0"),
        (("learn", "--steps", "1.5"), "steps is '1.5': give a whole number"),
        (("learn", "--n", "4"), "n is 4 and m is 4: keep fewer weights than a group has"),
        (("learn", "--n", "1", "--m", "1"), "m is 1: give 2 or more"),
        (("learn", "--n", "0"), "n is 0: give 1 or more"),
        (
            ("learn", *TINY, "--m", "48", "--out", "{tmp}/f"),
            "input dimension 32 is not a multiple of 48; input dimension 64 is not a multiple of 48): choose another",
        ),
        (("learn", "--metric", "size"), "invalid choice: 'size'"),
        (("learn", "--out", "tests"), "exists and is not empty"),
        (("learn", "--model", "./nothing", "--out", "{tmp}/a"), "There is no file or directory './nothing'"),
        (("learn", "--lamda1", "0.2"), "--lamda1 0.2: see `proxsparse learn --help`"),
        (("sweep", "--lambda1", "0.2"), "--lambda1 0.2: see `proxsparse sweep --help`"),
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
            "There is no file or directory 'missing.txt': check the path",
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
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, tmp_path, tiny_directory, text_file, command):
    binary = tmp_path / "binary.txt"
    binary.write_bytes(bytes(range(256)))
    places = {"tmp": tmp_path, "tiny": tiny_directory, "text": text_file, "binary": binary}
    found = command(*(str(argument).format(**places) for argument in arguments))
    assert found.returncode == 2, found.stderr
    error = next(line for line in found.stderr.splitlines() if "error: " in line)
    assert words in error and "Traceback" not in found.stderr


def test_help_is_worth_reading_and_light():
    found = proxsparse("learn", "--help", env={"PYTHONPATH": ".", "PATH": "/usr/bin"})
    text = " ".join(found.stdout.split())
    assert "--lambda1 FLOAT strength of the N:M regularizer at the last step" in text and "(default 0.2)" in text
    assert "proxsparse learn --model embedded" in text
    script = (
        "import sys; from proxsparse.cli.main import build_parser; build_parser(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0, "--help does not wait for torch"

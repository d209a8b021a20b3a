"""The parts of the Export screen as HTML: the two formats, what sparse kernels can gain, what runs the model, files and proof."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from app import html
from app.views.export import ExportView, has_gpu
from proxsparse.config import EXPORT_FORMATS
from proxsparse.export.card import RUN_AS_TWO_FOUR

WHAT_IT_IS = {
    "dense": """A dense checkpoint with zeros: it loads anywhere that loads the original, and by itself it is neither smaller nor
faster.""",
    "compact": """A compact checkpoint: the kept values and one bit a weight. proxsparse puts the zeros back when it loads the model,
which is then as large in memory as the original, and not faster by itself; other programs do not read this format.""",
}
NAMES = {"dense": "Dense, with zeros", "compact": "Compact, without zeros"}
RUNTIMES = (
    ("PyTorch", "where it pays",
     "`proxsparse.accelerate(model)`, as in the lines below: fp16 or bf16 on an NVIDIA GPU of compute capability 8.0 or above, layer by "
     "layer with torch's `to_sparse_semi_structured`. It pays only for enough tokens at once, and not on every GPU: measure it."),
    ("TensorRT, TensorRT-LLM", "perhaps",
     "Takes the dense export as a Hugging Face checkpoint. Its autotuner may leave the sparse kernels out: one report measured no gain on "
     "an L4 (Model-Optimizer#1974)."),
    ("transformers", "no", "Loads the dense export as any other checkpoint, and multiplies the zeros."),
    ("vLLM, llama.cpp, MLX, ONNX Runtime", "no",
     "None of them multiplies 2:4 weights faster; vLLM had it and took it out (vllm#36799). The dense export runs where the original "
     "does, as fast as the original."),
)  # fmt: skip
EXAMPLE = """This is a recorded example: its curves and masks are here, its model's weights are not, so there is nothing to export.
Learn a mask of your own (`proxsparse learn --out runs/first`, or Run on the Learn screen) and choose it above; it takes minutes on a
laptop. What such an export weighs, and what it can gain, is below."""


def formats(shown: ExportView) -> str:
    """Both formats side by side, each with its size: of the files, or as it will be."""
    return f"<div class='formats'>{''.join(_format(shown, format) for format in EXPORT_FORMATS)}</div>"


def _format(shown: ExportView, format: str) -> str:
    size, written = shown.sizes.get(format), shown.report is not None and shown.format == format
    if size is None:
        weighs = "<div class='value'>–</div><div class='hint'>the run does not say how large its model is</div>"
    else:
        share = f"{size['ratio']:.0%} of the dense {html.size(size['dense_bytes'])} in {escape(size['dtype'])}"
        masked = f"; masked layers {size['masked_ratio']:.1%}" if format == "compact" else ""
        weighs = f"<div class='value'>{html.size(size['stored_bytes'])}</div><div class='hint'>weights: {share}{masked}</div>"
    if written:
        files = f"{html.size(shown.report['bytes'])} in {len(shown.report['files'])} files"
        state = f"<p><span class='status done'>written</span> {files}</p>"
    else:
        state = "<p class='hint'>not written; computed from shapes and dtype</p>"
    return (
        f"<section class='tile{' lead' if written else ''}'><h3>{NAMES[format]}</h3>{weighs}<p>{WHAT_IT_IS[format]}</p>"
        f"{state}</section>"
    )


def about_card(shown: ExportView) -> str:
    """What the model card below is."""
    if shown.card is None:
        return ""
    if shown.proven:
        return html.note("The model card, README.md, as it was written with the export.")
    return html.note("The model card, README.md, as it will be: its metadata is what the Hugging Face Hub reads.")


def speed(shown: ExportView) -> str:
    """What was measured on a GPU, where it was; and what arithmetic says, marked as that."""
    return "<h3>Speed</h3>" + _measured(shown) + _theory(shown)


def _measured(shown: ExportView) -> str:
    if shown.timing is not None and shown.timed is None:
        if shown.timing["status"] in ("failed", "interrupted", "stopped"):
            return html.failure(shown.timing.get("error") or shown.timing["doing"])
        return f"<p><span class='status running'>measuring</span> <span class='doing'>{escape(shown.timing['doing'])}</span></p>"
    if shown.timed is None:
        how = (
            ("export it, then measure it here" if shown.report is None else "measure it with the button below")
            if has_gpu()
            else "this machine has no NVIDIA GPU: `proxsparse bench DIR` measures an export on one that has"
        )
        return html.note(f"Nothing was measured for this export: {how}.")
    rows = (
        (escape(each["part"]), f"{each['tokens']:,}", f"{each['dense_seconds'] * 1e3:.2f}", f"{each['sparse_seconds'] * 1e3:.2f}",
         f"{each['speedup']:.2f}×")
        for each in shown.timed["end_to_end"]
    )  # fmt: skip
    measured = shown.timed.get("measured", True)
    word = "<span class='status done'>measured</span>" if measured else "<span class='status'>not measured</span>"
    table = (
        html.table(("part", "tokens", "dense ms", "sparse ms", "speedup"), rows, numeric=(1, 2, 3, 4))
        if measured
        else ""
    )
    return f"<p>{word} {escape(shown.timed['device'])}: {escape(shown.timed['summary'])}</p>{table}"


def _theory(shown: ExportView) -> str:
    n, m = shown.pattern
    if (n, m) not in RUN_AS_TWO_FOUR:
        return html.note(
            f"No kernel that we know of multiplies {n}:{m} weights faster: they need 2:4, which 1:2 and 1:4 masks are as well."
        )
    if shown.speed is None:
        return ""
    compact = shown.sizes["compact"]
    tiles = (
        html.tile("at most", f"{shown.speed['speedup']:.2f}×", "as fast as dense, by Amdahl's law"),
        html.tile("pruned layers", f"{shown.speed['share']:.0%}", "of the multiply-adds of one token"),
        html.tile("their storage", f"{compact['masked_ratio']:.1%}", "of dense: kept values and mask bits"),
    )
    return (
        f"<p><span class='status theory'>theory, not measured</span> Sparse tensor cores multiply 2:4 layers at most twice as fast; "
        f"the rest of the model stays as it is.</p><div class='tiles three'>{''.join(tiles)}</div>"
    )


def runtimes() -> str:
    """What runs 2:4 weights faster at the end of 2026, and what does not."""
    rows = ((html.with_code(name), escape(faster), html.with_code(how)) for name, faster, how in RUNTIMES)
    return f"<h3>What runs it faster (end of 2026)</h3>{html.table(('runtime', 'faster?', 'how'), rows)}"


def outcome(shown: ExportView | None) -> str:
    """The state of the export, its files and the proof."""
    if shown is None:
        return html.note("There is no run to export yet.")
    if shown.is_example:
        return html.note(EXAMPLE)
    if shown.state is None:
        if shown.newest is None:
            return html.note("This run has no masks yet: they are written with its first measurement.")
        return html.note(f"Not exported yet. The newest masks are of step {shown.newest}.")
    if shown.state["status"] in ("failed", "interrupted"):
        return html.failure(shown.state.get("error") or shown.state["doing"])
    if shown.report is None:
        return (
            f"<div class='banner'><span class='status running'>exporting, {shown.format}</span> "
            f"<span class='doing'>{escape(shown.state['doing'])}</span></div>"
        )
    # Exports of before there was a choice lack three of these.
    format, size = shown.report.get("format", "dense"), shown.report.get("size", {}).get("summary", "")
    about = (WHAT_IT_IS[format], size, shown.report.get("speed", ""))
    what = "<h3>What this is</h3>" + "".join(f"<p>{html.with_code(part)}</p>" for part in about if part)
    return _files(shown) + what + _proof(shown.report["verification"])


def _files(shown: ExportView) -> str:
    address = f"download/{quote(shown.id)}"
    rows = (
        (
            f"<a href='{address}/{quote(file['name'])}' download>{escape(file['name'])}</a>",
            html.size(file["bytes"]),
            escape(file["about"]),
        )
        for file in shown.report["files"]
    )
    return f"""<h3>Files, masks of step {shown.step}</h3>
<p><a class='download' href='{address}.zip' download>Download all as one .zip ({html.size(shown.report["bytes"])})</a></p>
{html.table(("file", "size", "what it is"), rows, numeric=(1,))}"""


def verdict(verification: dict) -> str:
    """Whether the export is proven, and what was compared."""
    kind, word = ("done", "proven") if verification["ok"] else ("failed", "not proven")
    return f"<p><span class='status {kind}'>{word}</span> {escape(verification['summary'])}</p>"


def _proof(verification: dict) -> str:
    rows = (
        (
            escape(layer["name"]), f"{layer['rows']} × {layer['columns']}", f"{layer['groups']:,}", str(layer["bad_groups"]),
            str(layer["changed_weights"]),
        )
        for layer in verification["layers"]
    )  # fmt: skip
    columns = ("layer", "shape", "groups", f"groups not {escape(verification['pattern'])}", "kept weights changed")
    return f"""<h3>Verification, read back from disk</h3>
{verdict(verification)}
<details><summary>Layer by layer ({len(verification["layers"])})</summary>
{html.table(columns, rows, numeric=(1, 2, 3, 4))}</details>"""

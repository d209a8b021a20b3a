"""What the checks of the exercises say about wrong answers: what is wrong, not only that it is."""

import itertools
import math

import plotly.graph_objects as go
import pytest
import torch
from lesson import check_01, check_02, check_03, check_04, check_05, check_06, exploring
from lesson.checking import Wrong
from torch.nn.functional import pad

from proxsparse import Mask, prox

FIRST = torch.tensor([True, True, False, False])


def values_and_positions(weight, kept):
    half = (weight.shape[0], weight.shape[1] // 2)
    return weight[kept].reshape(half), (kept.nonzero()[:, 1] % 4).reshape(half)


def alternating(v, lam):
    return prox(v, lam)  # as if it never went wrong


def under(soft, original, scale=None):
    """The original weights under the mask of the soft ones."""
    return Mask.project(soft, scale=scale).applied_to(original)


def gradient_at(loss, weights):
    weights = weights.clone().requires_grad_()
    return torch.autograd.grad(loss(weights), weights)[0]


def rms(values):
    return values.square().mean().sqrt()


def stderr(values, **about):
    return (values.std(**about) / len(values) ** 0.5).item()


def ratio(a, b):
    """A paired ratio of perplexities, and its standard error."""
    found = (a - b).mean().exp().item()
    return found, found * stderr(a - b)


def spread(a, b):
    """The deviation of the differences, in units of their mean."""
    return ((a - b).std() / (a - b).mean()).abs().item()


def needed(spread, errors=1):
    return max(2, math.ceil((errors * spread) ** 2))


def pairs(table, chosen):
    """All (a, b) of which `chosen` says yes to the layer error and perplexity of both."""
    rows = table[["method", "output_error", "perplexity"]].itertuples(index=False, name=None)
    return [(a[0], b[0]) for a, b in itertools.permutations(list(rows), 2) if chosen(*a[1:], *b[1:])]


def export_of(original, kept):
    """The tensors of an honest export."""
    return {name: torch.where(kept[name], each, 0) if name in kept else each for name, each in original.items()}


def unlike(original, exported, kept, same=torch.equal):
    """The names of tensors that are not as in an honest export, of those that both have."""
    wanted = export_of(original, kept)
    return [name for name in original if name in exported and not same(wanted[name], exported[name])]


def all_unlike(original, exported, kept, same=torch.equal):
    return unlike(original, exported, kept, same) + list(original.keys() ^ exported.keys())


def is_two_four(tensor, _=None):
    return bool(((tensor.reshape(-1, 4) != 0).sum(1) <= 2).all())


def packed(weight, kept, bits=range(8)):
    rows = len(weight)
    counts = 2 ** torch.tensor(list(bits))
    return weight[kept].reshape(rows, -1), (kept.reshape(rows, -1, 8) * counts).sum(-1).to(torch.uint8)


def strided(kept):
    """The weights of a byte, if it took every other one."""
    return kept.reshape(len(kept), 8, -1).transpose(1, 2).reshape(kept.shape)


def unpacked(values, bits, order=range(8), flip=False):
    kept = (bits.unsqueeze(-1) >> torch.tensor(list(order)) & 1).bool().reshape(len(values), -1) ^ flip
    return torch.zeros(kept.shape).masked_scatter(kept, values)


def gain(inside, rest, tokens, balance, multiplies=0.5, reads=9 / 16, together=max):
    def time(weights, multiplies=1.0, reads=1.0):
        return together(tokens * weights * multiplies, balance * weights * reads)

    return (time(inside) + time(rest)) / (time(inside, multiplies, reads) + time(rest))


def upwards(x, k):
    """What comes of updating e_1 before e_2: an entry is taken more than once."""
    e = [1.0] + [0.0] * k
    for entry, degree in itertools.product(x.tolist(), range(1, k + 1)):
        e[degree] += entry * e[degree - 1]
    return e[k]


def lost(before, after):
    return (before & ~after).reshape(len(before), -1, 4).sum(2)


WRONG = [
    (check_01.keep_two_of_four, lambda w: None, "returned nothing"),
    (check_01.keep_two_of_four, lambda w: w.missing, "raised AttributeError"),
    (check_01.keep_two_of_four, lambda w: [True], "returned a list: return a torch tensor of shape (1, 4)"),
    (check_01.keep_two_of_four, lambda w: w[:, :2] > 0, "shape (1, 2): it has to be (1, 4)"),
    (check_01.keep_two_of_four, lambda w: w, "a mask is boolean"),
    (check_01.keep_two_of_four, lambda w: w.abs() > 0.3, "Your mask keeps 3 of group (0, 0), whose weights are (0.9, 0.5, 0.4, 0.1)"),
    (check_01.keep_two_of_four, lambda w: FIRST.repeat(len(w), w.shape[1] // 4), "drops -0.7 and keeps 0.5"),
    (check_01.keep_two_of_four, lambda w: Mask.project(w.clamp(min=0) + 1e-9).dense(), "magnitudes, not signed"),
    (check_01.keep_two_of_four, lambda w: Mask.project(w.flip(1)).dense().flip(1), "breaks a tie to the right in group (0, 0)"),
    (check_01.compress, lambda w, kept: w[kept], "returned a Tensor: return two tensors"),
    (check_01.compress, lambda w, kept: (w, kept), "shape (1, 4): it has to be (1, 2)"),
    (check_01.compress, lambda w, kept: (values_and_positions(w, kept)[0], kept.nonzero()[:, 1].reshape(len(w), -1)), "within the group"),
    (check_01.compress, lambda w, kept: [v.flip(1) for v in values_and_positions(w, kept)], "return two tensors"),
    (check_01.compress, lambda w, kept: tuple(v.flip(1) for v in values_and_positions(w, kept)), "Value (0, 0) is 0.5 and should be 0.9"),
    (check_01.compress, lambda w, kept: (values_and_positions(w, kept)[0], values_and_positions(w, kept)[1] * 0), "Position (0, 1) is 0"),
    (check_01.multiply, lambda values, positions, x: (values * x[positions]).sum(1), "first group of x"),
    (check_01.multiply, lambda values, positions, x: values.sum(1), "The dense product of that row is"),
    (check_01.stored_share, lambda bits: 0.5, "the positions are missing"),
    (check_01.stored_share, lambda bits: (2 * bits + 2) / (4 * bits), "two positions, each of two bits"),
    (check_01.stored_share, lambda bits: 2 * bits + 4, "divide"),
    (check_01.stored_share, lambda bits: 0.9, "At 32 bits a weight the share is 0.5312, and you have 0.9"),
    (check_01.stored_share, lambda bits: "half", "returned 'half': return one number"),
    (check_01.log10_masks, lambda weights: weights // 4 * math.log10(4), "more than four patterns"),
    (check_01.log10_masks, lambda weights: weights * math.log10(6), "count groups, not weights"),
    (check_01.log10_masks, lambda weights: weights // 4 * 6, "multiplied, not added"),
    (check_02.regularizer, lambda w: w.abs().sum(1), "R(1, 0, 3, 0) is 0, and you have 4: two nonzeros are allowed"),
    (check_02.regularizer, lambda w: check_02.products(w, 3), "signs do not count"),
    (check_02.regularizer, lambda w: w.prod(1), "one product has no zero in it"),
    (check_02.regularizer, lambda w: w.abs().prod(), "shape (): it has to be (7,)"),
    (check_02.best_coordinate, lambda p, x, i, lam: p[i], "λ does not enter yet"),
    (check_02.best_coordinate, lambda p, x, i, lam: p[i] - lam * check_02.products(x[[j for j in range(4) if j != i]], 2), "never below 0"),
    (check_02.best_coordinate, lambda p, x, i, lam: max(0, p[i] - lam * check_02.products(x, 2)), "not x[i] itself"),
    (check_02.support_of_three, lambda p: p, "is not stationary"),
    (check_02.support_of_three, lambda p: p * math.nan, "a division went wrong"),
    (check_02.symmetric, lambda x, k: x.sum() ** k, "no entry may be taken twice"),
    (check_02.symmetric, lambda x, k: check_02.products(x, k) * math.factorial(k), "counts once"),
    (check_02.symmetric, lambda x, k: upwards(x, k), "update from e_k down to e_1"),
    (check_02.symmetric, lambda x, k: k, "it is the sum of 4 products of 1 different entries"),
    (check_03.masked_weights, lambda soft, scale, w: under(soft, soft, scale), "not the soft ones"),
    (check_03.masked_weights, lambda soft, scale, w: under(w, w, scale), "the soft weights choose"),
    (check_03.masked_weights, lambda soft, scale, w: under(soft, w), "times `scale`"),
    (check_03.masked_weights, lambda soft, scale, w: under(soft, w, scale) * scale, "does not multiply what is kept"),
    (check_03.masked_weights, lambda soft, scale, w: under(soft.clamp(min=0), w, scale), "magnitudes, not signed"),
    (check_03.masked_weights, lambda soft, scale, w: w, "4 of four are kept, not 2"),
    (check_03.masked_weights, lambda soft, scale, w: w * ~FIRST, "the two largest of |soft| · scale are kept"),
    (check_03.straight_through, lambda soft, w, loss: gradient_at(loss, soft), "at the soft weights, as in the paper"),
    (check_03.straight_through, lambda soft, w, loss: gradient_at(loss, w), "at the dense weights: mask them first"),
    (check_03.straight_through, lambda soft, w, loss: gradient_at(loss, under(w, w)), "the soft weights choose the mask"),
    (check_03.straight_through, lambda soft, w, loss: gradient_at(loss, under(soft, soft)), "stand the original weights"),
    (check_03.straight_through, lambda soft, w, loss: under(soft, gradient_at(loss, under(soft, w))), "they could never come back"),
    (check_03.straight_through, lambda soft, w, loss: -gradient_at(loss, under(soft, w)), "direction of descent"),
    (check_03.straight_through, lambda soft, w, loss: w * 0, "the true derivative, which says nothing"),
    (check_03.straight_through, lambda soft, w, loss: w, "differentiate the loss at the masked original weights"),
    (check_03.exchanged, lambda before, after: (before != after).reshape(3, -1, 4).sum(2), "counts once"),
    (check_03.exchanged, lambda before, after: lost(before, after) > 0, "not how many weights it exchanged"),
    (check_03.exchanged, lambda before, after: lost(before, ~after), "the weights that stayed"),
    (check_03.exchanged, lambda before, after: lost(before, after) + 1, "count what was kept before"),
    (check_03.exchanged, lambda before, after: before & ~after, "shape (3, 16): it has to be (3, 4)"),
    (check_04.absolute, lambda lam, w, s: lam * rms(w * s), "where weights are larger, a smaller λ does the same"),
    (check_04.absolute, lambda lam, w, s: lam / rms(w), "times `scale`"),
    (check_04.absolute, lambda lam, w, s: lam / rms(w * s) ** 2, "one power of the RMS is left"),
    (check_04.absolute, lambda lam, w, s: lam / (w * s).norm(), "the mean of the squares, not their sum"),
    (check_04.absolute, lambda lam, w, s: lam / (w * s).abs().mean(), "that is the mean magnitude"),
    (check_04.absolute, lambda lam, w, s: lam / (w * s).std(), "an RMS subtracts no mean"),
    (check_04.absolute, lambda lam, w, s: lam, "the relative λ still"),
    (check_04.absolute, lambda lam, w, s: 3 * lam, "the root of the mean of (weight · scale)²"),
    (check_04.absolute, lambda lam, w, s: lam / w, "return one number"),
    (check_04.strength, lambda step, steps, last, ramp: last, "the strength at the last step"),
    (check_04.strength, lambda step, steps, last, ramp: last * (1 + (ramp - 1) * (step - 1) / (steps - 1)) / ramp, "not by equal amounts"),
    (check_04.strength, lambda step, steps, last, ramp: last / ramp ** ((steps - step) / steps), "it grows 79 times, not 80"),
    (check_04.strength, lambda step, steps, last, ramp: last / ramp ** ((steps - step - 1) / (steps - 1)), "counted from 1"),
    (check_04.strength, lambda step, steps, last, ramp: last / ramp ** ((step - 1) / (steps - 1)), "that falls"),
    (check_04.strength, lambda step, steps, last, ramp: last * ramp ** ((step - 1) / (steps - 1)), "where it ends"),
    (check_04.strength, lambda step, steps, last, ramp: 0.1, "79 equal factors, together 1000"),
    (check_04.paired, lambda a, b: (a - b).mean(), "return two numbers"),
    (check_04.paired, lambda a, b: ((b - a).mean(), stderr(a - b)), "a minus b"),
    (check_04.paired, lambda a, b: ((a - b).mean().exp(), stderr(a - b)), "the ratio of the perplexities"),
    (check_04.paired, lambda a, b: (a.mean().exp() - b.mean().exp(), stderr(a - b)), "stay with the losses"),
    (check_04.paired, lambda a, b: ((a - b).sum(), stderr(a - b)), "take the mean"),
    (check_04.paired, lambda a, b: ((a - b).abs().mean(), stderr(a - b)), "differences have a sign"),
    (check_04.paired, lambda a, b: (9, stderr(a - b)), "the mean of a − b"),
    (check_04.paired, lambda a, b: ((a - b).mean(), (stderr(a) ** 2 + stderr(b) ** 2) ** 0.5), "how hard the windows are"),
    (check_04.paired, lambda a, b: ((a - b).mean(), (a - b).std()), "the mean of 8 varies less, by √8"),
    (check_04.paired, lambda a, b: ((a - b).mean(), (a - b).std() / len(a)), "the root of the number of windows"),
    (check_04.paired, lambda a, b: ((a - b).mean(), stderr(a - b, correction=0)), "one less than its number"),
    (check_04.paired, lambda a, b: ((a - b).mean(), (a - b).var() / len(a) ** 0.5), "that is the variance"),
    (check_04.paired, lambda a, b: ((a - b).mean(), 9), "the standard deviation of a − b"),
    (check_05.ratio, lambda a, b: ratio(a, b)[0], "return two numbers, the ratio and its standard error"),
    (check_05.ratio, lambda a, b: ratio(b, a), "a over b"),
    (check_05.ratio, lambda a, b: ((a - b).mean(), 0.1), "the difference of the losses"),
    (check_05.ratio, lambda a, b: (a.mean() / b.mean(), 0.1), "a ratio of losses"),
    (check_05.ratio, lambda a, b: ((a - b).exp().mean(), 0.1), "the mean of the windows' ratios"),
    (check_05.ratio, lambda a, b: (a.exp().mean() / b.exp().mean(), 0.1), "the mean of the losses first"),
    (check_05.ratio, lambda a, b: (a.mean().exp() - b.mean().exp(), 0.1), "the difference of the perplexities"),
    (check_05.ratio, lambda a, b: (9, 0.1), "exp of the mean of a − b"),
    (check_05.ratio, lambda a, b: (ratio(a, b)[0], stderr(a - b)), "the error of the logarithm: multiply it by the ratio"),
    (check_05.ratio, lambda a, b: (ratio(a, b)[0], ratio(a, b)[0] * math.hypot(stderr(a), stderr(b))), "how hard the windows are"),
    (check_05.ratio, lambda a, b: (ratio(a, b)[0], math.hypot(stderr(a), stderr(b))), "take the deviation of a − b"),
    (check_05.ratio, lambda a, b: (ratio(a, b)[0], ratio(a, b)[0] * (a - b).std()), "the mean of 6 varies less, by √6"),
    (check_05.ratio, lambda a, b: (ratio(a, b)[0], stderr((a - b).exp())), "which is another number"),
    (check_05.ratio, lambda a, b: (ratio(a, b)[0], ratio(a, b)[0] * stderr(a - b, correction=0)), "one less than its number"),
    (check_05.ratio, lambda a, b: (ratio(a, b)[0], math.exp(stderr(a - b))), "becomes a factor"),
    (check_05.ratio, lambda a, b: (ratio(a, b)[0], 9), "the ratio times the standard error of the mean of a − b"),
    (check_05.windows_needed, lambda a, b, errors: (errors * spread(a, b)) ** 2, "windows come whole"),
    (check_05.windows_needed, lambda a, b, errors: math.ceil((errors * spread(a, b)) ** 2), "one window has no deviation"),
    (check_05.windows_needed, lambda a, b, errors: needed(spread(a, b), errors) - 1, "round up"),
    (check_05.windows_needed, lambda a, b, errors: needed(math.hypot(a.std(), b.std()) / (a - b).mean(), errors), "without pairing"),
    (check_05.windows_needed, lambda a, b, errors: needed(spread(a, b)), "for one standard error, and 2 are asked for"),
    (check_05.windows_needed, lambda a, b, errors: math.ceil(errors * spread(a, b)), "the root of their number: square"),
    (check_05.windows_needed, lambda a, b, errors: needed(stderr(a - b) / (a - b).mean(), errors), "not from the error of the mean"),
    (check_05.windows_needed, lambda a, b, errors: math.ceil(errors * spread(a, b) ** 2), "square the number of errors"),
    (check_05.windows_needed, lambda a, b, errors: 40000, "solve |mean| = errors · deviation / √n for n"),
    (check_05.misleading, lambda table: table, "return a list of pairs (a, b) of methods"),
    (check_05.misleading, lambda table: [(0, 1)], "are no two methods of the table"),
    (check_05.misleading, lambda table: pairs(table, lambda e, p, f, q: e < f), "both agree on which is better"),
    (check_05.misleading, lambda table: pairs(table, lambda e, p, f, q: e > f and p < q), "the one with the lower layer error"),
    (check_05.misleading, lambda table: pairs(table, lambda e, p, f, q: e <= f and p > q), "equal errors say nothing"),
    (check_05.misleading, lambda table: pairs(table.fillna(1), lambda e, p, f, q: e > f and p < q), "dense has no layer error"),
    (check_05.misleading, lambda table: pairs(table, lambda e, p, f, q: e < f and p > q)[1:], "is missing"),
    (check_05.misleading, lambda table: 2 * pairs(table, lambda e, p, f, q: e < f and p > q), "each only once"),
    (check_06.tampered, lambda w, x, kept: 3, "return a list of names"),
    (check_06.tampered, lambda w, x, kept: [], "You do not name up: a dropped weight has come back"),
    (check_06.tampered, lambda w, x, kept: [name for name in w if not torch.equal(w[name], x[name])], "down is as it has to be"),
    (check_06.tampered, lambda w, x, kept: [n for n in kept if ((x[n] != 0) != kept[n]).any()], "one of them is zero in the original, too"),
    (check_06.tampered, lambda w, x, kept: [name for name in kept if not is_two_four(x[name])], "still every group is 2:4"),
    (check_06.tampered, lambda w, x, kept: unlike(w, x, kept, torch.allclose), "in its last bit: compare without a tolerance"),
    (check_06.tampered, lambda w, x, kept: [n for n in unlike(w, x, kept) if (x[n] != 0).flatten()[:4].sum() > 1], "a kept weight is zero"),
    (check_06.tampered, lambda w, x, kept: [n for n in unlike(w, x, kept) if n in kept], "it has no mask, and has to be the original's"),
    (check_06.tampered, lambda w, x, kept: unlike(w, x, kept), "the original has no such tensor"),
    (check_06.tampered, lambda w, x, kept: unlike(w, x, kept) + list(x.keys() - w.keys()), "it is missing in the export"),
    (check_06.tampered, lambda w, x, kept: [*all_unlike(w, x, kept), "norm"], "norm is as it has to be, and you name it: it has no mask"),
    (check_06.pack, lambda w, kept: w[kept], "return two tensors, values and bits"),
    (check_06.pack, lambda w, kept: (w, packed(w, kept)[1]), "The values have shape (3, 16): it has to be (3, 8)"),
    (check_06.pack, lambda w, kept: (packed(w, kept)[0], kept), "The bits have shape (3, 16): it has to be (3, 2)"),
    (check_06.pack, lambda w, kept: (packed(w, kept)[0].flip(1), packed(w, kept)[1]), "the kept weights of a row, from left to right"),
    (check_06.pack, lambda w, kept: (packed(w, kept)[0], packed(w, kept)[1].long()), "eight of them fit one torch.uint8"),
    (check_06.pack, lambda w, kept: packed(w, kept, range(7, -1, -1)), "weight 8b is the lowest bit"),
    (check_06.pack, lambda w, kept: (packed(w, kept)[0], 255 - packed(w, kept)[1]), "a bit is 1 where the weight is kept"),
    (check_06.pack, lambda w, kept: (packed(w, kept)[0], packed(w, strided(kept))[1]), "beside each other"),
    (check_06.pack, lambda w, kept: (packed(w, kept)[0], packed(w, kept)[1] * 0), "bit k of a byte counts 2 to the power k"),
    (check_06.unpack, lambda values, bits: values, "shape (3, 8): it has to be (3, 16)"),
    (check_06.unpack, lambda values, bits: unpacked(values, bits, range(7, -1, -1)), "the lowest bit of a byte is the first"),
    (check_06.unpack, lambda values, bits: unpacked(values, bits, flip=True), "a bit is 1 where the weight is kept"),
    (check_06.unpack, lambda values, bits: (unpacked(values, bits) != 0).float(), "put the values where they are 1"),
    (check_06.unpack, lambda values, bits: pad(values.reshape(3, 4, 2), (0, 2)).reshape(3, 16), "where in its group a value stands"),
    (check_06.unpack, lambda values, bits: unpacked(values.flip(1), bits), "the values of a row, in their order"),
    (check_06.at_most, lambda *about: 1 / gain(*about), "more than 1 is faster"),
    (check_06.at_most, lambda inside, rest, *batch: gain(inside, 0, *batch), "the layers without a mask take time as well"),
    (check_06.at_most, lambda *about: gain(*about, reads=0.5), "half of the values, and their positions"),
    (check_06.at_most, lambda *about: gain(*about, reads=1), "a 2:4 layer has less to read, too"),
    (check_06.at_most, lambda *about: gain(*about, multiplies=1), "half of the multiply-adds"),
    (check_06.at_most, lambda *about: gain(*about, together=lambda a, b: a + b), "at the same time: the longer one counts"),
    (check_06.at_most, lambda inside, rest, *_: 1 / (1 - inside / (inside + rest) / 2), "that is Amdahl's bound"),
    (check_06.at_most, lambda inside, rest, *batch: (rest + inside * gain(inside, 0, *batch)) / (inside + rest), "speedups do not add up"),
    (check_06.at_most, lambda *about: 9, "add up max(multiply-adds, reading)"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "answer", "words"), WRONG)
def test_a_wrong_answer_is_told_what_is_wrong(check, answer, words):
    with pytest.raises(Wrong) as caught:
        check(answer)
    assert words in str(caught.value)
    assert caught.value._render_traceback_() == [f"✗ {caught.value}"], "Jupyter shows the sentence alone"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: [1, 2, 3, 4], "return two things"),
        (lambda: ([1, 2, 3], 0.5), "You returned 3 weights and λ = 0.5"),
        (lambda: ([1, 0.6, 0.6, 0.6], 0.01), "λ times the largest weight is 0.01, and between 0.6 and 1"),
        (lambda: ([1, 0.6, 0.6, 0.6], 0.75), "both end at"),
    ],
)
def test_a_trap_that_is_none_is_told_why(answer, words):
    with pytest.raises(Wrong) as caught:
        check_02.trap(answer, alternating)
    assert words in str(caught.value)


def test_any_right_answer_passes_however_it_is_written(capsys):
    def three(p):
        return prox(torch.cat((p, p.new_zeros(1))).unsqueeze(0), 1.0)[0, :3]

    check_01.keep_two_of_four(lambda w: Mask.project(w).dense())
    check_01.log10_masks(lambda weights: torch.tensor(6.0, dtype=torch.float64).log10() * (weights / 4))
    check_02.support_of_three(three)
    check_02.symmetric(
        lambda x, k: (
            sum(math.prod(each) for each in itertools.combinations(x.tolist(), k)) if len(x) < 20 else 137846528820
        )
    )
    assert capsys.readouterr().out.count("✓ ") == 4


def drawn(a, b):
    return [
        go.Figure(
            {"data": [{"type": "bar", "x": ["a", "b"], "y": [a, b]}], "layout": {"title": {"text": f"a is {a}"}}}
        ),
        go.Figure({"data": [{"type": "scatter", "x": [0, 1], "y": [a, a * b]}]}),
    ]


def test_figures_follow_the_sliders():
    from ipywidgets import FloatSlider

    exploration = exploring.Exploration(drawn, {"a": FloatSlider(value=1, max=9), "b": FloatSlider(value=2, max=9)})
    exploration.sliders["a"].value = 5
    first, second = exploration.figures
    assert list(first.data[0].y) == [5, 2] and first.layout.title.text == "a is 5.0"
    assert list(second.data[0].y) == [5, 10]


def test_where_no_widget_runs_there_is_a_picture(monkeypatch):
    shown = []
    monkeypatch.setattr(exploring, "display", lambda each, **_: shown.append(each))
    exploring.explore(drawn, a=(0, 9, 1), b=(0, 9, 2))
    sliders, *figures = shown
    assert [slider.description for slider in sliders.children] == ["a", "b"] and len(figures) == 2
    assert all(exploring.WIDGET in each and exploring.FIGURE in each for each in figures), (
        "live, and still for all others"
    )

    def no_widgets(*_):
        raise ImportError("anywidget is not there")

    shown.clear()
    monkeypatch.setattr(exploring, "Exploration", no_widgets)
    exploring.explore(drawn, a=(0, 9, 1), b=(0, 9, 2))
    assert [type(each) for each in shown] == [go.Figure, go.Figure]

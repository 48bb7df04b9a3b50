"""What every pruner must satisfy, whoever wrote it: run these checks over `METHODS`, or over a plug-in's `Method`.

    from theory_checks.contract import CONTRACT
    @pytest.mark.parametrize("clause", CONTRACT)
    def test_contract(clause): CONTRACT[clause](my_method)

A clause raises AssertionError with the numbers; clauses that a method does not promise say so and return.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

import solvers
from solvers.methods import Method
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.sparsity import L0, Array, Budget, KeepGroups, KeepNofM, KeepPerLayer, KeepPerRow
from theory_checks.certificate import allowance
from theory_checks.support import exact_count, violations
from theory_checks.synthetic import Case

Order = npt.NDArray[np.intp]


def layers() -> Iterator[Case]:
    """Two hard layers, made afresh: a case remembers its problem and its runs."""
    yield Case("language_like", rows=6, inputs=16, seed=1)
    yield Case("dead", rows=5, inputs=16, seed=2)


def budgets(method: Method, problem: LayerProblem, share: float = 0.5) -> Iterator[Budget]:
    """One budget of each pattern that the method accepts, keeping `share`; n:m in windows of 4 and of 8 inputs."""
    rows, inputs = problem.shape
    offered: list[Budget] = [KeepPerRow(round(share * inputs)), KeepPerLayer(round(share * rows * inputs))]
    offered += [KeepNofM(round(share * of), of) for of in (4, 8) if inputs % of == 0]
    yield from (b for b in offered if isinstance(b, method.patterns))


def patterns(method: Method, problem: LayerProblem) -> Iterator[Budget]:
    """What users ask for, as far as the method accepts it: 50%, 50%/layer, 2:4, 4:8 and 1:4."""
    yield from budgets(method, problem)
    yield from (b for b in budgets(method, problem, 0.25) if b == KeepNofM(1, 4))


def _weight(method: Method, problem: LayerProblem, budget: Budget) -> Array:
    return solvers.run(method, problem, budget).weight


def pattern(method: Method) -> None:
    """Exact counts in every window at several shares; removed entries are +0.0; shape kept; inputs not written to."""
    prunes = method.run is not solvers.METHODS["dense"].run
    for case in layers():
        case.W0.flags.writeable = case.problem.H.flags.writeable = False
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            for budget in budgets(method, case.problem, share):
                W = _weight(method, case.problem, budget)
                assert W.shape == case.W0.shape, f"shape {case.W0.shape} became {W.shape}"
                certificate = exact_count(budget, case.W0, W)
                assert certificate.outcome == "holds" or not prunes, f"{budget}: {certificate}"


def deterministic(method: Method) -> None:
    """Twice the same input, twice the same bits."""
    for case in layers():
        for budget in patterns(method, case.problem):
            first, second = (_weight(method, case.problem, budget) for _ in range(2))
            assert np.array_equal(first, second), f"two runs under {budget} differ in {np.sum(first != second)} entries"


def descends(method: Method) -> None:
    """With a penalty the result is not worse than the dense start, by the outside objective."""
    if "descends" not in method.promises:
        return
    for case in layers():
        run = solvers.run(method, case.problem, case.penalty)
        F, start = (run.problem.value(W) + case.penalty.value(W) for W in (run.refined, run.problem.W0))
        assert start + allowance(start, case.inputs) >= F, f"F rose from {start} to {F}"


def rows(method: Method) -> None:
    """Permuting output rows permutes the result."""
    _equivariant(method, "rows", lambda W, H, r, c: (W[r], H), lambda W, r, c: W[r])


def inputs(method: Method) -> None:
    """Permuting inputs permutes the result (whole budgets per row; n:m windows would be torn apart)."""
    _equivariant(method, "inputs", lambda W, H, r, c: (W[:, c], H[np.ix_(c, c)]), lambda W, r, c: W[:, c], KeepPerRow)


def scale(method: Method) -> None:
    """Weights times 4 give the result times 4, and a Gram times 4 changes nothing, bit for bit."""
    _equivariant(method, "scale", lambda W, H, r, c: (4 * W, H), lambda W, r, c: 4 * W)
    _equivariant(method, "scale", lambda W, H, r, c: (W, 4 * H), lambda W, r, c: W)


def _equivariant(
    method: Method,
    promise: str,
    move: Callable[[Array, Array, Order, Order], tuple[Array, Array]],
    expect: Callable[[Array, Order, Order], Array],
    only: type[Budget] = Budget,
) -> None:
    if promise not in method.promises:
        return
    for case in layers():
        r, c = case.rng(8).permutation(case.rows), case.rng(9).permutation(case.inputs)
        moved = LayerProblem.of(*move(case.W0, case.problem.H, r, c))
        for budget in (b for b in patterns(method, case.problem) if isinstance(b, only)):
            expected, got = expect(_weight(method, case.problem, budget), r, c), _weight(method, moved, budget)
            if promise == "scale" or not method.normalised:
                assert np.array_equal(got, expected), f"{promise}, {budget}: {np.sum(got != expected)} entries differ"
            else:  # sums in another order may turn a safeguard between two equally good points
                judge = moved.normalised()
                f, g = (judge.value(judge.scaled(W)) for W in (got, expected))
                reach = allowance(judge.magnitude(judge.scaled(got)), 50 * case.inputs)
                assert abs(f - g) <= reach, f"{promise}, {budget}: objectives {f} and {g} differ"


def keep_everything(method: Method) -> None:
    """A budget that removes nothing returns the dense weight: bit for bit where promised, else to rounding."""
    for case in layers():
        for budget in budgets(method, case.problem, 1.0):
            W = _weight(method, case.problem, budget)
            far = float(np.abs(W - case.W0).max())
            reach = 0.0 if "exact" in method.promises else allowance(float(np.abs(case.W0).max()), case.inputs)
            assert far <= reach, f"{budget} removes nothing, yet weights moved by {far:.3g}"


def keep_nothing(method: Method) -> None:
    """A budget of zero returns zero."""
    if method.run is solvers.METHODS["dense"].run:
        return
    for case in layers():
        for budget in budgets(method, case.problem, 0.0):
            W = _weight(method, case.problem, budget)
            assert not W.any(), f"{budget} keeps nothing, yet {np.count_nonzero(W)} weights stayed"


def diagonal_gram(method: Method) -> None:
    """With a diagonal Gram the optimum is known: the largest |w| sqrt(h) stay as they are."""
    if "identity" not in method.promises:
        return
    case = next(layers())
    h = np.ones(case.inputs) if method.evidence == "none" else case.rng(10).uniform(0.1, 10, case.inputs)
    problem = LayerProblem.of(case.W0, np.diag(h))
    for budget in patterns(method, problem):
        W = _weight(method, problem, budget)
        cost = np.square(case.W0) * h
        best = sum(np.sort(w)[: len(w) - budget.keep].sum() for w in _windows(budget, cost))
        got = float(cost[W == 0].sum())
        assert violations(budget, W) == 0
        assert got <= best + allowance(float(cost.sum()), cost.size), f"{budget}: removed {got:.6g}, optimum {best:.6g}"


def _windows(budget: Budget, cost: Array) -> Array:
    width = {KeepPerRow: cost.shape[1], KeepPerLayer: cost.size, KeepNofM: getattr(budget, "of", 0)}[type(budget)]
    return cost.reshape(-1, width)


def refuses(method: Method) -> None:
    """NaN, wrong shapes, asymmetric or indefinite Grams and impossible budgets are refused in words.

    A budget is impossible where the method does not know its pattern, or its windows do not divide the inputs.
    """
    case = next(layers())
    W, H = case.W0, case.problem.H
    broken = W.copy()
    broken[0, 0] = np.nan
    crooked = H.copy()
    crooked[0, 1] += 1.0
    for what, make in {
        "NaN weight": lambda: LayerProblem.of(broken, H),
        "transposed weight": lambda: LayerProblem.of(W.T, H),
        "asymmetric Gram": lambda: LayerProblem.of(W, crooked),
        "infinite Gram": lambda: LayerProblem.of(W, np.full_like(H, np.inf)),
    }.items():
        _refused(what, make)
    if not method.penalties:
        _refused("a penalty", lambda: method.require("it", L0(1.0)), "it cannot meet L0(lam=1.0); it can do")
    for budget in (KeepPerRow(4), KeepPerLayer(4), KeepNofM(2, 4), KeepGroups(1, (0,) * W.shape[1])):
        if not isinstance(budget, method.patterns):
            _refused(str(budget), partial(method.require, "it", budget), f"it cannot meet {budget}; it can do")
    for text in ("2:4", "4:8", "1:4"):
        _refused_on_too_few_inputs(method, text, LayerProblem.of(W[:, :6], H[:6, :6]))


def _refused_on_too_few_inputs(method: Method, text: str, six: LayerProblem) -> None:
    budget, words = KeepNofM(*map(int, text.split(":"))), f"{text} needs an input dimension divisible by {text[-1]}"
    _refused(f"{text} on 6 inputs", lambda: solvers.parse(text).on(six.shape), words)
    if method.prunes and KeepNofM in method.patterns:
        _refused(f"{text} on 6 inputs", lambda: solvers.run(method, six, budget), words)


def _refused(what: str, make: Callable[[], object], words: str = "") -> None:
    try:
        said = f"it was accepted and gave {type(make()).__name__}"
    except Refusal as refusal:
        if words in (said := str(refusal)):
            return
    raise AssertionError(f"{what} is to be refused with '{words}'; {said}")


CONTRACT: dict[str, Callable[[Method], None]] = {
    f.__name__: f
    for f in (
        pattern,
        deterministic,
        descends,
        rows,
        inputs,
        scale,
        keep_everything,
        keep_nothing,
        diagonal_gram,
        refuses,
    )
}

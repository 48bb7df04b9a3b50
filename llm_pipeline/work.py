"""What solving and judging one layer costs: products, factors, selections and passes, counted from the methods' texts.

Letters: W (m, n); a product V H costs 2 m n^2 FLOP, a Cholesky factor n^3/3, one step of selection or arithmetic visits
m n entries. Counts are those of `solvers`, in float64 on the host; a fast twin's products run on the device.

    products of a run     iht 2T + 1, maiht 4T + 1, twins T and 2T, admm T + 1, alps 2T + 12, sparsegpt 1/2 (1)
    products of judging   2 (|H| at W and 0) for the claims of a traced run, 1 gradient, 1 value where descent is
                          promised, 2 + 3 for saved weights and their line in layers.jsonl        (2)
    judged on a device    the same products there in float64, and the arrays sent to it; what exchanges are checked
                          with stays on the host                                                  (2')
    factors of a site     1 to accept the Gram, 1 for each Lipschitz bound that is used           (3)

What depends on the data is an assumption, marked as such: rounds of FISTAPruner and ALPS, steps of conjugate
gradients, exchanges.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from solvers.problem import PART

ROUNDS = {"fista": 8, "alps": 45}  # assumed: rounds until the run stops by itself
CG_STEPS = 40  # assumed: steps of `refine exact` to its residual of 1e-6
EXCHANGES = 0.034  # of the entries under `swaps all`: means 0.033, 0.035 of 42 layers of wikitext2-llama-5m, 50 %, 70 %
LANCZOS = 30  # products of a vector with H in the estimate of lambda_max
SMALL = 512  # inputs up to which the step size is judged by a full eigendecomposition
EIGEN = 9.0  # n^3 of an eigendecomposition with vectors, without them 4/3
TWIN_PASSES, TWIN_SELECTION = 25, 300  # float32 passes, and bytes that one selection moves an entry, of a twin's step
DEVICE_PART = 2048  # rows or columns of a product at a time where a device judges; fewer leave it idle
DEVICE_SELECTION = 750  # bytes that a selection in float64 moves an entry there; assumed: a sort is four
ROWS = 8  # rows whose exchanges are searched again by a certificate


@dataclass(frozen=True)
class Work:
    """Amounts by kind; each kind has a rate of its name in `rates.Rates`.

    Attributes
    ----------
    forward : FLOP of a forward pass, on the device in its dtype
    gram : FLOP of X'X, on the device in float32
    fast : FLOP of a twin's products, on the device in float32
    wide : FLOP of products in float64 on the device
    product, factor : FLOP of products and of factorisations, in float64 on the host
    passes, selections : float64 entries of one arithmetic operation, and of one selection, on the host
    moved : bytes of elementwise operations on the device
    sent : bytes from the host to the device
    calls : operations on arrays that are too small to take time for anything but themselves
    disk, hashed : bytes read or written, and bytes digested
    """

    forward: float = 0.0
    gram: float = 0.0
    fast: float = 0.0
    wide: float = 0.0
    product: float = 0.0
    factor: float = 0.0
    passes: float = 0.0
    selections: float = 0.0
    moved: float = 0.0
    sent: float = 0.0
    calls: float = 0.0
    disk: float = 0.0
    hashed: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)))

    def __mul__(self, times: float) -> Work:
        return Work(*(getattr(self, f.name) * times for f in fields(Work)))

    @property
    def flop(self) -> float:
        """Floating-point operations of matrix products and factorisations."""
        return self.forward + self.gram + self.fast + self.wide + self.product + self.factor


def layer(m: int, n: int, products: float = 0, passes: float = 0, selections: float = 0) -> Work:
    """So many products, passes and selections of a layer of m outputs and n inputs."""
    return Work(product=2 * m * n**2 * products, passes=m * n * passes, selections=m * n * selections)


def cholesky(n: int, times: float = 1) -> Work:
    """Cholesky factors of (n, n) with the passes that build the matrix and copy it."""
    return Work(factor=times * n**3 / 3, passes=times * 5 * n**2)


def lipschitz(n: int) -> Work:
    """The proved bound on lambda_max: Lanczos, then a factorisation."""
    return cholesky(n) + Work(passes=LANCZOS * n**2 / 2)


def accepting(n: int) -> Work:
    """From the sum of a Gram to a Gram that is known to be positive semidefinite."""
    return cholesky(n) + Work(passes=8 * n**2)


@dataclass(frozen=True)
class Recipe:
    """The choices of a plan that decide what a layer costs."""

    method: str
    options: dict[str, Any]
    refine: str = "none"
    swaps: int | str = 0
    fast: bool = False
    drift: bool = False
    normalised: bool = True
    judged_there: bool = False  # certificates on the device

    @property
    def traced(self) -> bool:
        """Whether the method records a trace of proximal steps, to which most claims refer."""
        return self.method in ("iht", "maiht", "maiht-released")


def site_work(recipe: Recipe, n: int) -> Work:
    """What the layers of a site share: unit-diagonal Grams, one for each ridge, and Lipschitz bounds (3)."""
    refined = recipe.refine != "none"
    work = Work(passes=8 * n**2 * (1 + refined))
    bounds = int(recipe.traced or recipe.method == "fista") + int(recipe.refine.startswith("gradient"))
    return work + lipschitz(n) * bounds


def solving(recipe: Recipe, m: int, n: int) -> Work:
    """The solver of one layer, refinement and swaps included (1)."""
    work = searching(recipe, m, n) + layer(m, n, passes=8)
    if recipe.drift:
        work += cholesky(n) + layer(m, n, products=4, passes=10)
    if recipe.refine.startswith("gradient:"):
        work += layer(m, n, products=1, passes=5) * int(recipe.refine.partition(":")[2])
    if recipe.refine == "exact":
        work += conjugate_gradients(m, n, CG_STEPS)
    return work + exchanging(recipe, m, n)


def searching(recipe: Recipe, m: int, n: int) -> Work:
    """The method itself."""
    options, method = recipe.options, recipe.method
    T = int(options.get("iters", 0))
    if method == "iht":
        return _twin(m, n, T, 1) if recipe.fast else layer(m, n, 2 * T + 1, 14 * T, T)
    if method == "maiht":
        return _twin(m, n, T, 2) if recipe.fast else layer(m, n, 4 * T + 1, 27 * T, 2 * T)
    if method == "maiht-released":
        return layer(m, n, 4 * T + 3 + options["polish"], 29 * T + 5 * options["polish"], 3)
    if method in ("admm", "admm-released"):
        return cholesky(n) + layer(m, n, T + 1, 16 * (T + 1), options["refresh"])
    if method == "alps":
        rounds = min(T, ROUNDS["alps"])
        polish = conjugate_gradients(m, n, options["polish"])
        return Work(factor=EIGEN * n**3) + layer(m, n, 2 * rounds, 17 * rounds, rounds + 1) + polish
    if method == "sparsegpt":
        return sparsegpt(m, n, int(options["blocksize"]))
    if method == "fista":
        rounds = min(int(options["rounds"]), ROUNDS["fista"])
        start = sparsegpt(m, n, 128) if options["start"] == "sparsegpt" else layer(m, n, passes=2, selections=1)
        return start + layer(m, n, 2, 6, 1) + layer(m, n, 2 * T + 2, 23 * T + 8, 1) * rounds
    return layer(m, n, passes=2, selections=method not in ("dense",))


def sparsegpt(m: int, n: int, b: int) -> Work:
    """A factor, its inverse, and the lazy updates of the columns beyond each block of b."""
    beyond = sum(2.0 * m * (min(j + b, n) - j) * max(n - j - b, 0) for j in range(0, n, b))
    inside = 3 * m * n * min(b, n) / 2
    return Work(factor=n**3 / 3 + n**3, product=beyond, passes=inside + 8 * m * n, selections=m * n, calls=12 * n)


def conjugate_gradients(m: int, n: int, steps: int) -> Work:
    """Masked least squares: two gradients, then one product a step."""
    return layer(m, n, products=2 + steps, passes=6 + 20 * steps)


def exchanging(recipe: Recipe, m: int, n: int) -> Work:
    """Swaps: two factorisations and inverses on the support of a row, then (1)-(6) of `solvers.swaps` an exchange."""
    if not recipe.swaps:
        return Work()
    k = n / 2  # half of the inputs stay; fewer cost less
    made = EXCHANGES * n if recipe.swaps == "all" else min(float(recipe.swaps), EXCHANGES * n)
    fresh = Work(factor=k**3 / 3 + 2 * k**3 + 2 * k**2 * (n - k))
    exchange = Work(passes=16 * k * (n - k) + 8 * k**2 + 4 * n, product=2 * n**2 + 2 * k * (n - k), calls=60)
    return (fresh * (2 if recipe.swaps == "all" else 1) + exchange * (made + 1)) * m


def judging(recipe: Recipe, m: int, n: int) -> Work:
    """Every certificate of one layer, and its line in layers.jsonl (2)."""
    refined, swapped = recipe.refine != "none", bool(recipe.swaps)
    products = 2.0 + 3.0
    absolute = 1  # |H| and sums over it
    if recipe.traced:
        products += 2 + 1 + (recipe.method != "maiht-released")  # which promises no descent
        absolute += 2
    if recipe.method == "fista":
        products += 8
        absolute += 3
    if refined:
        products += 2 + 1 + 2 * (2 + swapped) + 2
        absolute += 1
    if recipe.refine == "exact":
        products += 2 + 1
        absolute += 1
    products += 6 * swapped
    part = DEVICE_PART if recipe.judged_there else PART
    work = layer(m, n, products, 3 * products + 12 + 2 * swapped, 4) + Work(passes=absolute * n**2 * (1 + m / part))
    if recipe.judged_there:
        # the dense weight in both coordinates and the found one; the last as it is saved takes 4 bytes an entry
        arrays = 3 + 2 * refined + swapped + 2 * (recipe.method == "fista")
        work = _there(work, m * n * (8.0 * arrays + 4)) + Work(passes=m * n)  # (2')
    if recipe.traced and recipe.method != "maiht-released" and n <= SMALL:
        work += Work(factor=4 / 3 * n**3)
    if swapped:
        k = n / 2
        work += Work(factor=ROWS * (2 * k**3 + 8 * k**3 + 2 * k**2 * (n - k)))
    return work + Work(hashed=2 * m * n)


def sending(recipe: Recipe, n: int) -> Work:
    """What the layers of a site share where they are judged: its Grams, and the drift."""
    matrices = 2 + (recipe.refine != "none") + 2 * recipe.drift
    return Work(sent=8.0 * n**2 * matrices, moved=24.0 * n**2 * matrices) if recipe.judged_there else Work()


def _there(amount: Work, sent: float) -> Work:
    """The same work in float64 on the device."""
    moved = 24.0 * amount.passes + DEVICE_SELECTION * amount.selections
    return Work(wide=amount.product, moved=moved, sent=sent)


def _twin(m: int, n: int, T: int, products: int) -> Work:
    """A twin's products on the device in float32, and the entries that its elementwise kernels move."""
    steps = products * (T + 1)  # the points are multiplied once more where the precision changes
    moved = m * n * products * T * (4.0 * TWIN_PASSES + TWIN_SELECTION)
    return Work(fast=2.0 * m * n**2 * steps, moved=moved)

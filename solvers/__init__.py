"""The mathematics: pruning a layer as sparse least squares around its dense weight. NumPy text, float64.

>>> import solvers
>>> sorted(solvers.METHODS)
['admm', 'admm-released', 'alps', 'dense', 'fista', 'iht', 'magnitude', 'maiht', 'maiht-released', 'sparsegpt', 'wanda']
"""

from importlib.metadata import entry_points

from solvers import admm, alps, fista_pruner, iht, magnitude, maiht, released, sparsegpt, wanda
from solvers.gpu import admm as fast_admm
from solvers.gpu import alps as fast_alps
from solvers.gpu import fista as fast_fista
from solvers.gpu import iht as fast_iht
from solvers.gpu import maiht as fast_maiht
from solvers.gpu import sparsegpt as fast_sparsegpt
from solvers.methods import Method, near
from solvers.problem import Gram, LayerProblem
from solvers.refusal import Refusal
from solvers.solution import Relaxed, Solution, Stop, Trace
from solvers.sparsity import L0, L1, KeepGroups, KeepNofM, KeepPerLayer, KeepPerRow, parse

ONE_SHOT = frozenset({"exact", "rows", "inputs", "scale", "identity"})
DESCENT = frozenset({"rows", "scale", "identity", "descends"})
SPLITTING = frozenset({"rows", "inputs", "scale"})

METHODS: dict[str, Method] = {
    "dense": Method(
        magnitude.dense,
        "none",
        "the null method",
        prunes=False,
        promises=frozenset({"exact", "rows", "inputs", "scale"}),
    ),
    "magnitude": Method(magnitude.magnitude, "none", "Han et al. 2015", promises=ONE_SHOT),
    "wanda": Method(wanda.wanda, "norms", "Sun et al. 2024", promises=ONE_SHOT),
    "iht": Method(
        iht.iht,
        "gram",
        "Blumensath, Davies 2008",
        penalties=True,
        normalised=True,
        promises=DESCENT,
        gpu=fast_iht.iht,
    ),
    "maiht": Method(
        maiht.maiht,
        "gram",
        "Wen, Zuo, Pan 2025",
        penalties=True,
        normalised=True,
        promises=DESCENT,
        gpu=fast_maiht.maiht,
    ),
    "maiht-released": Method(
        released.maiht_released,
        "gram",
        "the authors' code, 2025",
        patterns=(KeepPerLayer, KeepNofM),
        normalised=True,
        promises=frozenset({"scale", "identity"}),
    ),
    "sparsegpt": Method(
        sparsegpt.sparsegpt,
        "gram",
        "Frantar, Alistarh 2023",
        promises=frozenset({"exact", "scale"}),
        gpu=fast_sparsegpt.sparsegpt,
    ),
    "admm": Method(admm.admm, "gram", "Boza 2024", normalised=True, promises=SPLITTING, gpu=fast_admm.admm),
    "admm-released": Method(
        released.admm_released, "gram", "the author's code, 2024", normalised=True, promises=SPLITTING
    ),
    "fista": Method(
        fista_pruner.fista_pruner,
        "gram",
        "Zhao et al. 2024, FISTAPruner",
        promises=frozenset({"exact", "scale", "identity"}),
        gpu=fast_fista.fista,
    ),
    "alps": Method(alps.alps, "gram", "Meng et al. 2024", normalised=True, promises=SPLITTING, gpu=fast_alps.alps),
}


def find(name: str) -> Method:
    """The method of that name: the table, then entry points of the group ``pruning.methods``, else a Refusal."""
    if name in METHODS:
        return METHODS[name]
    plugins = {entry.name: entry for entry in entry_points(group="pruning.methods")}
    if name in plugins:
        loaded: Method = plugins[name].load()
        return loaded
    known = sorted([*METHODS, *plugins])
    raise Refusal(f"unknown method '{name}'.{near(str(name), known)} Known: {', '.join(known)}.")


from solvers.door import Run, run, solve  # noqa: E402 - the door looks methods up in this table

__all__ = [
    "L0",
    "L1",
    "METHODS",
    "Gram",
    "KeepGroups",
    "KeepNofM",
    "KeepPerLayer",
    "KeepPerRow",
    "LayerProblem",
    "Method",
    "Refusal",
    "Relaxed",
    "Run",
    "Solution",
    "Stop",
    "Trace",
    "find",
    "parse",
    "run",
    "solve",
]

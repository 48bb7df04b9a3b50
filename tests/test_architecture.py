"""The house: who imports whom, how long a text may be, and what is never written."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import solvers

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("solvers", "theory_checks", "llm_pipeline", "benchmarks", "reports")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
JUDGES = sorted([*(ROOT / "theory_checks").glob("*.py"), *(ROOT / "tests/solvers").glob("*.py")])
JUDGES += sorted((ROOT / "tests/theory_checks").glob("*.py"))
SOLVERS = [path for path in SOURCES if path.is_relative_to(ROOT / "solvers")]
SMALL = 1e-3


def _name(path):
    return str(path.relative_to(ROOT))


def _functions(path):
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_dependencies_point_at_the_mathematics(tmp_path):
    command = [Path(sys.executable).with_name("lint-imports"), "--cache-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


def test_the_mathematics_imports_without_any_framework():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in SOURCES
        if path.parts[len(ROOT.parts)] in ("solvers", "theory_checks") and path.stem not in ("strategies", "__main__")
    ]
    blocked = ("torch", "triton", "transformers", "cupy", "safetensors", "hypothesis", "array_api_strict")
    program = (
        f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
        f"import {', '.join(modules)}, theory_checks.__main__\n"
        "import numpy as np\nprint(solvers.solve(np.eye(4), np.eye(4)).weight.sum())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "4.0", done.stderr


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=_name)
def test_a_file_is_named_by_what_it_holds(path):
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "base", "misc"}


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_file_and_its_functions_fit_in_the_head(path):
    assert len(path.read_text().splitlines()) <= 400
    long = {f.name: f.end_lineno - f.lineno + 1 for f in _functions(path) if f.end_lineno - f.lineno >= 90}
    assert not long


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_nothing_is_left_for_later(path):
    assert "NotImplemented" not in path.read_text()


def _loose(node):
    """A tolerance that was typed instead of derived: a small literal in a comparison, or a closeness keyword."""
    small = [c for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, float)]
    if isinstance(node, ast.Compare) and not any(isinstance(op, ast.Eq) for op in node.ops):
        return any(0 < abs(c.value) <= SMALL for c in small)
    if isinstance(node, ast.Call):
        return any(k.arg in ("atol", "rtol") for k in node.keywords) or "approx" in ast.unparse(node.func)
    return False


@pytest.mark.parametrize("path", JUDGES, ids=_name)
def test_every_tolerance_is_derived(path):
    loose = [ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if _loose(node)]
    assert not loose


@pytest.mark.parametrize("text", ["assert x < 1e-6", "np.allclose(a, b, atol=t)", "assert x == pytest.approx(y)"])
def test_a_typed_tolerance_would_be_seen(text):
    assert any(_loose(node) for node in ast.walk(ast.parse(text)))


@pytest.mark.parametrize("name", solvers.METHODS)
def test_a_method_names_its_paper_and_explains_itself(name):
    method = solvers.METHODS[name]
    assert method.paper
    assert method.run.__doc__
    for option in method.options():
        assert re.search(rf"^    {option} : ", method.run.__doc__, re.MULTILINE) or name == "maiht-released"


@pytest.mark.parametrize("path", SOLVERS, ids=_name)
def test_public_functions_and_classes_have_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
    own_page = {"State", "start", "step"}  # a method's own texts, explained by the equations above them
    assert not [n.name for n in public if not ast.get_docstring(n) and n.name not in own_page]


def test_a_reconstruction_says_so():
    assert all("reconstruction" in m.run.__doc__ for name, m in solvers.METHODS.items() if name.endswith("-released"))

"""DGL is imported in one place, quietly, and its absence names the extra."""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
needs_dgl = pytest.mark.skipif(find_spec("dgl") is None, reason="DGL is not installed (the extra is called graphs)")


def run(program, home, **environment):
    """A new process, in which every warning is an error, with a home of its own."""
    told = {name: value for name, value in os.environ.items() if not name.startswith("DGL")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**told, "HOME": str(home), **environment},
        cwd=home,
        capture_output=True,
        text=True,
    )


@needs_dgl
@pytest.mark.parametrize("told", [{}, {"DGLBACKEND": "tensorflow"}])
def test_the_import_says_nothing_and_leaves_nothing_and_several_threads_may_ask_at_once(tmp_path, told):
    program = """
import os
import torch
from concurrent.futures import ThreadPoolExecutor
from codistill.graphs.dgl import load_dgl
before = dict(os.environ)
with ThreadPoolExecutor(4) as pool:
    (dgl,) = set(pool.map(lambda _: load_dgl(), range(8)))
graph = dgl.graph((torch.tensor([0, 1]), torch.tensor([1, 1])))
assert dgl.ops.copy_u_sum(graph, torch.tensor([[1.0], [2.0]])).tolist() == [[0.0], [3.0]]
assert dict(os.environ) == before
"""
    done = run(program, tmp_path, **told)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    ("hidden", "told"), [("dgl", "DGL is not installed"), ("pandas", "the package pandas, which DGL needs, is not")]
)
def test_what_is_missing_is_named_with_the_extra_that_brings_it(tmp_path, hidden, told):
    if hidden != "dgl" and find_spec("dgl") is None:
        pytest.skip("DGL is not installed (the extra is called graphs)")
    program = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
from codistill.graphs.dgl import load_dgl
try:
    load_dgl()
except ModuleNotFoundError as error:
    print(error)
"""
    done = run(program, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(told)
    assert "pip install 'codistill[graphs]'" in done.stdout


def test_no_other_module_imports_dgl():
    importing = set()
    for path in ROOT.glob("[a-z]*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module or "")
            if any(name.split(".")[0] == "dgl" for name in names):
                importing.add(path.relative_to(ROOT).as_posix())
    assert importing == set()


def test_importing_the_graphs_does_not_import_dgl(tmp_path):
    program = "import codistill.graphs.dgl, sys\nassert 'dgl' not in sys.modules and 'pandas' not in sys.modules"
    done = run(program, tmp_path)
    assert done.returncode == 0, done.stderr

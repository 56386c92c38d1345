"""What the source may not contain: anything that unpickles, evaluates or imports what a model folder says."""

import ast
import re
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "florentune"
SANDBOX = "model/import_weights.py"
TREES = {
    path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")
}
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
# Calls that read a pickle or run code, by how they are written; `allow_pickle` and the like are judged by keyword.
CALLS = ("torch.load", "np.load", "numpy.load", "pd.read_pickle", "yaml.unsafe_load", "yaml.full_load")
CALLS += ("torch.hub.load", "torch.jit.load", "accelerator.load_state", "eval", "exec", "compile", "__import__")
AUTO = re.compile(r"\bAuto(Config|Model\w*|Processor|Tokenizer|ImageProcessor|FeatureExtractor)\b")


@cache
def calls_of(name):
    return [(ast.unparse(node.func), node) for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)]


def imported_by(name):
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]


def test_no_module_unpickles_or_runs_what_it_reads():
    for name in TREES:
        assert not UNPICKLERS & set(imported_by(name)), name
        found = {function for function, _ in calls_of(name) if function in CALLS}
        assert found == ({"torch.load"} if name == SANDBOX else set()), name


def test_no_call_trusts_remote_code_or_pickles():
    for name in TREES:
        for function, call in calls_of(name):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg}
            assert given.get("trust_remote_code", "False") == "False", f"{name}: {function}"
            assert given.get("allow_pickle", "False") == "False", f"{name}: {function}"
            assert given.get("weights_only", "True") == "True", f"{name}: {function}"
            assert not function.endswith("from_pretrained"), f"{name}: {function} reads files that nobody judged"


def test_yaml_is_read_by_a_safe_loader_only():
    for name, tree in TREES.items():
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        safe = {node.name for node in classes if [ast.unparse(base) for base in node.bases] == ["yaml.SafeLoader"]}
        for function, call in calls_of(name):
            if function == "yaml.load":
                loaders = {ast.unparse(value) for value in [*call.args[1:], *(word.value for word in call.keywords)]}
                assert loaders <= safe, name
                assert loaders, name


def test_the_only_load_of_pickles_is_restricted():
    loads = [call for function, call in calls_of(SANDBOX) if function == "torch.load"]
    assert loads
    assert all(any(keyword.arg == "weights_only" for keyword in call.keywords) for call in loads)


def test_no_class_is_chosen_by_a_model_folder():
    """transformers' Auto classes pick a class, and may pick code, by what config.json says."""
    for name, tree in TREES.items():
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not [found for found in names if AUTO.fullmatch(found)], name


def test_every_proof_that_security_md_names_exists():
    root = SOURCE.parent.parent
    text = (root / "SECURITY.md").read_text(encoding="utf-8") + (root / "docs/reliability.md").read_text(
        encoding="utf-8"
    )
    written = "".join(path.read_text(encoding="utf-8") for path in (root / "tests").glob("*.py"))
    for test in set(re.findall(r"`(test_\w+)`", text)):
        assert f"def {test}(" in written, f"no test is called {test}"
    for file in set(re.findall(r"`(tests/\w+\.py)`", text)):
        assert (root / file).is_file(), f"there is no {file}"

"""Promises about what is never run: nothing that is loaded may bring code, nothing that is started goes by a shell."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("ratoon", "tasks", "flows") for path in (ROOT / folder).rglob("*.py"))
# They run code that lies in what they load.
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "tempfile.mktemp",
    "torch.load",
    "torch.save",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "tarfile.extractall",
    "pandas.read_pickle",
    "pl.read_pickle",
}
ARGUMENTS = {"trust_remote_code": False, "allow_pickle": False, "shell": False, "weights_only": True, "verify": True}


def breaches(code: str) -> list[str]:
    """What in `code` would load or start more than it says."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [item.name for item in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"import {name}" for name in names if name.split(".")[0] in MODULES]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS or called.endswith(".extractall"):
                found.append(f"{called}()")
            found += [ast.unparse(item) for item in node.keywords if unsafe(item)]
            if called.endswith("AutoModelForCausalLM.from_pretrained"):
                known = {item.arg: ast.unparse(item.value) for item in node.keywords}
                if known.get("use_safetensors") != "True" and "gguf_file" not in known:
                    found.append(f"{called} without use_safetensors=True")
    return found


def unsafe(item: ast.keyword) -> bool:
    if item.arg not in ARGUMENTS:
        return False
    return not (isinstance(item.value, ast.Constant) and item.value.value is ARGUMENTS[item.arg])


def test_no_file_of_ours_unpickles_trusts_remote_code_or_asks_a_shell():
    assert len(FILES) > 300
    found = {str(path.relative_to(ROOT)): breaches(path.read_text(encoding="utf-8")) for path in FILES}
    assert {name: said for name, said in found.items() if said} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "load(path, trust_remote_code=asked)",
        "subprocess.run(line, shell=True)",
        "yaml.load(text, Loader)",
        "archive.extractall(folder)",
        "AutoModelForCausalLM.from_pretrained(path)",
        "eval(text)",
    ],
)
def test_each_of_them_would_be_found(code):
    assert breaches(code)


@pytest.mark.parametrize(
    "code",
    ["model.eval()", "np.load(path)", "yaml.safe_load(text)", "subprocess.run([name, text])", "re.compile(text)"],
)
def test_what_is_safe_is_left_alone(code):
    assert breaches(code) == []

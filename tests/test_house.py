"""The design, held by a machine."""

import importlib.metadata
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from ratoon import config
from ratoon.cli import parser

ROOT = Path(__file__).parents[1]
OURS = {"ratoon", "flows", "tasks"}
CONFIGURATION_ONLY = {"mlflow", "docker"}


def installed_modules():
    names = set(sys.stdlib_module_names)
    for distribution in importlib.metadata.distributions():
        if distribution.metadata["Name"] != "ratoon":
            for file in distribution.files or []:
                top = file.parts[0]
                if len(file.parts) > 1 and re.fullmatch(r"[A-Za-z_]\w*", top):
                    names.add(top)
                elif top.endswith(".py"):
                    names.add(top.removesuffix(".py"))
    return names


def test_no_module_of_ours_shadows_an_installed_one():
    # Prefect registers a flow's file under its bare name: flows/evaluate.py would replace Hugging Face's evaluate.
    names = {p.stem for folder in ("flows", "tasks") for p in (ROOT / folder).glob("*.py")} - {"__init__"}
    assert not names & installed_modules()


def test_no_folder_of_ours_shadows_an_installed_package():
    importable = {p.parent.name for p in ROOT.glob("*/*.py")} - {"tests", "benchmarks"}
    assert importable == OURS
    assert not importable & installed_modules()


@pytest.mark.parametrize("folder", sorted(CONFIGURATION_ONLY))
def test_configuration_folders_hold_no_python(folder):
    assert not list((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", sorted((ROOT / "data" / "sources").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_declared_source_loads(path):
    assert config.source(ROOT, path.stem).name == path.stem


@pytest.mark.parametrize("path", sorted((ROOT / "models" / "bases").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_declared_base_loads(path):
    base = config.base(ROOT, path.stem)
    for member in base.family:
        assert config.base(ROOT, member).row_tokens == base.row_tokens


@pytest.mark.parametrize("path", sorted((ROOT / "data" / "benchmarks").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_declared_benchmark_loads(path):
    assert config.benchmark(ROOT, path.stem).name == path.stem


def test_params_load_with_every_budget():
    params = config.load(ROOT)
    for budget in params.budgets:
        assert config.load(ROOT, budget=budget).refresh.budget == budget


def test_every_yaml_is_yaml():
    for path in [*ROOT.glob("*.yaml"), *ROOT.glob("docker/*.yaml"), *ROOT.glob("mlflow/*.yaml")]:
        assert yaml.safe_load(path.read_text()) is not None, path


def test_every_deployment_names_a_flow():
    from importlib import import_module

    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        module, name = deployment["entrypoint"].rsplit(".", 1)
        flow = getattr(import_module(module), name)
        assert "ask" in flow.parameters.properties


def test_the_form_of_a_deployment_shows_every_field_of_ask():
    from flows.refresh import refresh

    form = refresh.parameters.model_dump()["definitions"]["Ask"]["properties"]
    assert set(form) == set(config.Ask.model_fields)
    assert all("description" in field for field in form.values())


def documented_commands():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.S | re.M):
            for line in block.splitlines() if language in ("", "sh") else ():
                if match := re.match(r"\$?\s*(?:\.venv/bin/)?ratoon\s+(.*?)(?:\s+#.*)?$", line):
                    yield page.name, match[1]


@pytest.mark.parametrize(("page", "arguments"), list(documented_commands()))
def test_every_documented_command_is_one_the_parser_knows(page, arguments):
    parser().parse_args(shlex.split(arguments))


def test_the_readme_documents_commands():
    assert len([page for page, _ in documented_commands() if page == "README.md"]) > 10


def test_every_dependency_is_pinned():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    names = {re.match(r"[\w.-]+", item)[0].lower().replace("_", "-") for item in wanted} - {"ratoon"}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert names <= pinned


def test_every_parameter_a_stage_depends_on_is_in_params_yaml():
    """DVC refuses to run a stage one of whose parameters is not there."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    asked = {name for stage in stages for name in stage.get("do", stage).get("params", ())}
    assert asked
    for name in asked:
        here = params
        for key in name.split("."):
            assert key in here, name
            here = here[key]


def test_no_machine_path_is_written_down():
    pattern = re.compile(r"/(?:root|home/\w+|tmp/w|work)/")
    for path in ROOT.rglob("*"):
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".txt"} and not {".venv", ".ratoon", ".git"} & set(
            path.parts
        ):
            if "data" in path.parts[len(ROOT.parts) :][:1] and path.suffix == ".txt":
                continue
            assert not pattern.search(path.read_text(errors="replace")) or path == Path(__file__), path

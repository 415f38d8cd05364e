"""Documentation names files and commands that there are, and says first what a page is for or a function returns."""

from __future__ import annotations

import ast
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import conftest
import pytest

import bytecover2_milvus

REPOSITORY = Path(__file__).parents[2]
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
PAGES = [
    *REPOSITORY.glob("docs/**/*.md"),
    *(REPOSITORY / f"{name}.md" for name in ("README", "CONTRIBUTING", "RELEASE")),
]


def tracked() -> set[str]:
    done = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        pytest.skip("no git repository here")
    return set(done.stdout.splitlines())


def test_every_file_in_the_picture_of_the_architecture_is_there() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"[a-z0-9_]+\.pyi?\b", page))
    assert len(named) > 60 and not named - {Path(name).name for name in tracked()}


def test_benchmarks_that_pages_name_can_be_run() -> None:
    """A module that only defines its command does nothing, without a word."""
    named = {name for page in PAGES for name in re.findall(r"python -m (benchmarks[\w.]+\w)", page.read_text("utf-8"))}
    assert len(named) > 20
    for name in named:
        module = REPOSITORY / f"{name.replace('.', '/')}.py"
        assert 'if __name__ == "__main__":' in module.read_text(encoding="utf-8"), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", [page for page in PAGES if "docs" in page.parts], ids=lambda page: page.name)
def test_a_page_begins_with_what_it_is_for(page: Path) -> None:
    title, first = re.split(r"\n\n+", page.read_text(encoding="utf-8"))[:2]
    assert re.match(r"# \w", title) and re.match(r"`?[A-Za-z]", first) and first[-1] in ".:"


@pytest.mark.parametrize("folder", ["bytecover2_milvus", "export", "benchmarks"])
def test_docstrings_say_what_is_returned_or_done(folder: str) -> None:
    asking = []
    for path in (REPOSITORY / folder).glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node) or ""
                if re.match(r"(What|How|Which|Whether|Where|Who|When|Why)\b", docstring):
                    asking.append(f"{path}: {docstring.splitlines()[0]}")
    assert not asking


@pytest.mark.parametrize("name", [".github/workflows/test.yml", "README.md", "CONTRIBUTING.md", "RELEASE.md"])
def test_targets_of_make_are_in_the_makefile(name: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    used = set(re.findall(r"(?:`|run: |^)make ([a-z]+)", text, re.MULTILINE))
    assert used and all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in used)


def test_every_target_of_make_says_what_it_does() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    described = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^make (\w+) +\S", described, re.MULTILINE) == phony.split()


def test_the_version_has_one_place() -> None:
    assert version("bytecover2-milvus") == bytecover2_milvus.__version__
    written = [name for name in tracked() if name.endswith((".py", ".toml")) and not name.startswith("tests/golden")]
    holding = [
        name for name in written if f'"{bytecover2_milvus.__version__}"' in (REPOSITORY / name).read_text("utf-8")
    ]
    assert holding == ["bytecover2_milvus/__init__.py"]


def test_slow_files_are_files() -> None:
    files = {path.stem.removeprefix("test_") for path in Path(__file__).parents[1].glob("*/test_*.py")}
    assert files >= conftest.SLOW >= set(conftest.LONG)

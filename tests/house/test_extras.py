"""What is missing is told with the command that brings it, whatever the package was installed from."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from bytecover2_milvus.extras import DISTRIBUTION, how_to_get, why_not_imported

REPOSITORY = Path(__file__).parents[2]
EXTRAS = ("cpu", "cuda", "lite", "parquet", "bulk", "ray", "serve", "notebook", "train", "mirdata")


def declared(extra: str) -> list[str]:
    import tomllib

    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    return pyproject["project"]["optional-dependencies"][extra]


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_names_what_the_project_declares(extra: str) -> None:
    packages = [re.match(r"[\w.-]+", requirement)[0] for requirement in declared(extra)]
    named = re.findall(r'"([\w.-]+)', how_to_get(extra))
    assert how_to_get(extra).startswith("pip install ") and named == packages


def test_what_is_unknown_is_installed_from_the_clone() -> None:
    assert how_to_get("none") == 'pip install ".[none]" in the clone'


def test_a_package_that_is_there_and_broken_is_not_called_missing(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "half_installed.py").write_text("raise ImportError('needs\\nNumPy 2.0', name='half_installed')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError) as broken:
        import half_installed  # noqa: F401
    told = why_not_imported(broken.value, "lite")
    assert told.startswith("half_installed is installed but cannot be imported (needs NumPy 2.0): pip install ")
    with pytest.raises(ImportError) as missing:
        import not_installed_anywhere  # noqa: F401
    assert why_not_imported(missing.value, "lite").startswith("not_installed_anywhere is not installed: pip install ")


def test_no_text_names_this_package_by_a_registry() -> None:
    """Nobody has published it there, and anybody could."""
    files = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout
    by_name = re.compile(rf"{DISTRIBUTION}\[|pip install (?:\S+ )*['\"]?{DISTRIBUTION}\b")
    paths = [REPOSITORY / name for name in files.splitlines()] or [*REPOSITORY.glob("bytecover2_milvus/**/*.py")]
    texts = [path for path in paths if path.suffix in (".py", ".md", ".sh", ".toml", ".yml") and path.is_file()]
    assert len(texts) > 50
    assert not [path for path in texts if path != Path(__file__) and by_name.search(path.read_text(encoding="utf-8"))]
    assert by_name.search(f'pip install "{DISTRIBUTION}[lite]"')

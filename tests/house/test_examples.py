"""The notebooks run from the first cell to the last and find what they say; they are kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
ALONE = "import sys\nsys.modules |= dict.fromkeys(['bytecover2_milvus', 'pymilvus', 'torch', 'soundfile', 'librosa'])"


def run(name: str, before: str = "") -> dict[str, str]:
    """The last output of every cell as text, by the beginning of the cell."""
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    if before:
        notebook.cells.insert(0, nbformat.v4.new_code_cell(before))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    told = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output
            told[cell.source] = output.get("text") or output["data"].get("text/html") or output["data"]["text/plain"]
    return told


def of_cell(told: dict[str, str], part: str) -> str:
    (output,) = (output for source, output in told.items() if part in source)
    return output


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_its_title_and_is_kept_without_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    first, *_ = notebook["cells"]
    assert first["cell_type"] == "markdown" and "".join(first["source"]).startswith("# ")
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and not any(cell["outputs"] or cell["execution_count"] for cell in code)


def test_the_catalogue_finds_songs_by_other_arrangements() -> None:
    told = run("catalogue")
    answer = of_cell(told, "Question(limit=3, min_probability=0)")
    assert answer.startswith("<table>") and "Amazing Grace" in answer and "of the query runs as" in answer
    assert of_cell(told, "listen(answer, recording").count("<audio controls") == 2
    nearest = of_cell(told, "pd.concat")
    names = ("amazing-grace", "auld-lang-syne", "greensleeves", "londonderry-air", "scarborough-fair")
    found = sum(nearest.count(f"<td>{name}</td>") == 2 for name in names)  # asked for, and found; by chance 1 of 5
    assert found >= 3
    assert "group" in of_cell(told, "find_groups(")


def test_the_hand_off_needs_numpy_and_onnx_runtime_alone() -> None:
    told = run("hand-off", ALONE)
    assert "is allowed" in of_cell(told, "golden = np.load")
    rows = of_cell(told, "similarities.round(2)").replace("array(", "").split("]")
    cover, other = (float(value) for value in rows[0].strip(" [").split(",")[1:])
    assert cover > other + 0.2


def test_a_collection_of_ones_own_is_filled_and_searched() -> None:
    told = run("own-collection")
    found = of_cell(told, "client.search(")
    assert found.startswith("[('O Come, All Ye Faithful")
    assert "'song_id': 3" in of_cell(told, "MappedCollection(client")

"""Results as tables of pandas, which the extra ``notebook`` brings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from .errors import BytecoverError
from .extras import why_not_imported

if TYPE_CHECKING:
    import pandas as pd


def to_dataframe(records: Iterable[Any], columns: Iterable[str] | None = None) -> pd.DataFrame:
    """A row for each record, such as a `Match`, and a column for each of its fields.

    Parameters
    ----------
    records : iterable of dataclasses or mappings
        Of one kind.
    columns : iterable of str, optional
        Names of the fields, which an empty table has, too; by default those of the first record.

    Returns
    -------
    table : pandas.DataFrame

    Raises
    ------
    BytecoverError
        If pandas is missing: it names the command that installs it.
    TypeError
        If something is neither a dataclass nor a mapping.

    Examples
    --------
    >>> to_dataframe([{"rank": 1, "title": "Greensleeves"}]).title[0]
    'Greensleeves'
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise BytecoverError(f"a table: {why_not_imported(error, 'notebook')}") from error
    rows = [_fields(record) for record in records]
    return pd.DataFrame(rows, columns=None if columns is None else list(columns))


def _fields(record: Any) -> dict[str, Any]:
    if isinstance(record, Mapping):
        return dict(record)
    if is_dataclass(record) and not isinstance(record, type):
        return asdict(record)
    raise TypeError(f"{type(record).__name__}: neither a dataclass nor a mapping")

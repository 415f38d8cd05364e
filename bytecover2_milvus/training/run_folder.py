"""The folder of a run: the best weights, all that resuming needs, and the log of validations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import OutputError
from ..metrics import Evaluation
from .checkpoint import BEST, LAST, Checkpoint
from .journal import JOURNAL, Journal
from .learner import Learner
from .validation import VALIDATION


class RunFolder:
    """The checkpoints and the log of a run; only rank 0 writes.

    Parameters
    ----------
    out : Path
    config : Config
    learner : Learner
    works : str
        `works_digest` of the works that the classifier tells apart.
    run : dict of str
        What the run is known by: "corpus", "validation" and "start" of a `Checkpoint`.
    facts : dict of str
    resumed : Checkpoint or None
        What the folder held.
    """

    def __init__(
        self,
        out: Path,
        config: Config,
        learner: Learner,
        works: str,
        run: dict[str, str],
        facts: dict[str, str],
        resumed: Checkpoint | None,
    ) -> None:
        self.out, self._config, self._learner, self._works, self._run = out, config, learner, works, run
        self._facts = facts
        self.journal = Journal(out / JOURNAL, *((resumed.samples, resumed.seconds) if resumed else ()))
        self._best = float(resumed.facts.get(VALIDATION, -1)) if resumed else -1.0

    @property
    def has_best(self) -> bool:
        """True once a validation has chosen the best weights."""
        return self._best >= 0

    def add_validation(self, result: Evaluation) -> None:
        """Note a validation of the learner's weights; they are saved if none were better before."""
        self.journal.write(self._learner.step, map=result.map, mr1=result.mr1, precision_at_10=result.precision_at_10)
        if (reached := round(result.map, 6)) > self._best:  # as rounded as saved, or a resumed run would take a tie
            self._best = reached
            self.save_best()

    def save_best(self) -> None:
        """Save the weights that are kept, for those who use them and for runs that start from them."""
        self._save(self.out / BEST)

    def save_last(self) -> None:
        """Save all that resuming needs."""
        learner = self._learner
        reached = {"step": learner.step, "samples": self.journal.samples, "seconds": self.journal.seconds}
        weights = {"optimizer": learner.moments, "running": learner.averaged.running}
        self._save(self.out / LAST, **weights, **reached, **self._run)

    def _save(self, path: Path, **running: Any) -> None:
        learner = self._learner
        facts = self._facts | ({VALIDATION: f"{self._best:.6f}"} if self.has_best else {})
        if learner.fabric.is_global_zero:
            network, chroma_network = learner.networks
            Checkpoint(
                self._config,
                network,
                learner.note_map,
                chroma_network,
                classifier=learner.classifier.weight,
                works=self._works,
                facts=facts,
                **running,
            ).save(path)


def make_folder(out: Path) -> None:
    """Make the folder of a run, where it is not there yet.

    Raises
    ------
    OutputError
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be made ({error.strerror}); choose another folder") from error

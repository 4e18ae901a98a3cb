"""What is declared about models, laid over what a server told of them: pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from contract.model_names import find
from contract.roster import ModelReport
from workers.backends.declarations import DeclaredModel
from workers.backends.dsn import BackendConfig


def declared(reports: Iterable[ModelReport], config: BackendConfig) -> tuple[ModelReport, ...]:
    """The reports with the configuration's facts; models that the server hides come behind.

    A declared fact wins. A trait that is declared is no longer among what the model lacks, and
    the other way round.
    """
    told = {report.name: report for report in reports}
    hidden = {name: ModelReport(name=name) for name in config.models if find(told, name) is None}
    return tuple(_merged(report, config.models) for report in (told | hidden).values())


def _merged(report: ModelReport, models: Mapping[str, DeclaredModel]) -> ModelReport:
    found = find(models, report.name)
    if found is None:
        return report
    facts = found[1]
    update: dict[str, Any] = facts.model_dump(exclude_none=True)
    if facts.traits is not None and facts.lacks is None:
        update["lacks"] = tuple(trait for trait in report.lacks if trait not in facts.traits)
    if facts.lacks is not None and facts.traits is None:
        update["traits"] = tuple(trait for trait in report.traits if trait not in facts.lacks)
    return report.model_copy(update=update)

"""The section of docs/insertion.md with the results of `benchmarks/sites.py`."""

from collections.abc import Mapping, Sequence
from typing import Any

from common import markdown

from site_cases.cases import Case
from site_cases.checks import Result

__all__ = ["sections", "summary"]

_LIBRARIES = {"own": "written by hand", "smp": "segmentation_models_pytorch", "transformers": "Hugging Face"}
_SHORT = 90


def sections(listed: Sequence[Case], further: Sequence[Case], results: Mapping[str, Any]) -> list[str]:
    """Return the parts of the page: the shares and a table, of the listed networks and of the further ones."""
    parts = []
    for title, cases in (("", listed), ("#### Further networks", further)):
        known = [(case, Result(**results[case.name])) for case in cases if case.name in results]
        if known:
            rows = [[f"`{case.name}`", *_cells(case, result)] for case, result in known]
            table = markdown(["network", "sites", "rule", "other placements", "result"], rows, right=False)
            details = f'<details markdown="1">\n<summary>{len(known)} networks</summary>\n\n{table}\n\n</details>'
            parts += [title, summary(known), details]
    return [part for part in parts if part]


def summary(known: Sequence[tuple[Case, Result]]) -> str:
    """Return the sentence with the shares of networks."""
    verdicts = [result.verdict(case) for case, result in known if not case.refused]
    own = [result.verdict(case) for case, result in known if case.refused]
    count = {verdict: verdicts.count(verdict) for verdict in ("sensible", "incomplete", "wrong", "refused", "failed")}
    text = ", ".join(f"{number} {verdict}" for verdict, number in count.items() if number or verdict == "wrong")
    share = 100 * count["sensible"] / max(len(verdicts), 1)
    refused = ""
    if own:
        text += f".\n{len(own)} more have SE or attention of their own, or no convolutional blocks"
        refused = f" {own.count('refused')} of these\nare refused."
    return f"{share:.0f} % of {len(verdicts)} networks have sensible sites: {text}.{refused}"


def _cells(case: Case, result: Result) -> list[str]:
    verdict = result.verdict(case)
    if result.refusal:
        text = result.refusal if len(result.refusal) <= _SHORT else result.refusal[:_SHORT].rpartition(" ")[0] + " ..."
        return ["", "", "", f"{verdict}: {text}"]
    rules = ", ".join(f"{rule} {number}" for rule, number in result.rules.items())
    placements = ", ".join(f"{name} {number}" for name, number in result.placements.items() if name != "standard")
    faults = [*result.failed, *(f"`{name}`" for name in (*result.wrong[:2], *result.missing[:2]))]
    return [str(result.sites), rules, placements, f"{verdict}{': ' if faults else ''}{', '.join(faults)}"]

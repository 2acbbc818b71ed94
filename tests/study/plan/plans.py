"""Plans of small studies."""

from pathlib import Path
from typing import Any

from senet.study.plan.make_plan import make_plan
from senet.study.plan.named_studies import open_study
from senet.study.plan.plan import Plan


def planned(folder: Path, name: str = "placement", *settings: str, **options: Any) -> Plan:
    network = options.pop("network", None if name == "networks" else "resnet20")
    values: dict[str, Any] = {"data": "digits", "recipe": "digits", "seeds": 2, "folder": folder / "study"}
    return make_plan(open_study(name, network), settings=settings, **values | options)


def grid(folder: Path, text: str, *names: str) -> Plan:
    (folder / "mine.toml").write_text(text)
    study = open_study(folder / "mine.toml", "se_resnet20")
    study = study.only(names) if names else study
    return make_plan(study, data="digits", recipe="digits", seeds=1, folder=folder / "study")


def small_networks(folder: Path) -> Plan:
    study = open_study("networks").only(["preresnet110", "se_preresnet110"])
    return make_plan(study, data="digits", recipe="digits", seeds=1, folder=folder / "study")

"""`senet models`: what networks there are, and one of them by stage."""

from typing import Annotated, Any

import typer

from senet.cli.console import JsonOption, SetOption, print_json, stdout, table
from senet.cli.networks import network_options

__all__ = ["models"]


def models(
    pattern: Annotated[
        str, typer.Argument(metavar="[PATTERN | NAME]", help="A glob such as 'se_resnet*', or one network's name.")
    ] = "*",
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """List networks, or show one by stage: units, channels, SE sites, parameters with and without SE."""
    from senet.errors import unknown_name
    from senet.models import list_models

    names = list_models(pattern)
    if pattern in names:
        _show(pattern, network_options(set_), json)
        return
    if not names:
        raise ValueError(f"{unknown_name('network', pattern, list_models())} `senet models` lists all.")
    if set_:
        raise ValueError(f"--set goes with the name of one network, and {pattern!r} is a pattern")
    rows = _rows(names)
    if json:
        print_json(rows)
        return
    table(
        "",
        ["network", "with SE", "image", "parameters", "with SE", "more"],
        [
            [r["name"], r["se_name"], f"{r['size']}x{r['size']}", r["parameters"], r["se_parameters"], _more(r)]
            for r in rows
        ],
        text=2,
    )


def _rows(names: list[str]) -> list[dict[str, Any]]:
    import torch

    from senet.models import CATALOGUE, create_model, plain_name

    rows = []
    with torch.device("meta"):
        for name in dict.fromkeys(map(plain_name, names)):
            network = CATALOGUE[name]
            model = create_model(network.se_name)
            row = {
                "name": name,
                "se_name": network.se_name,
                "size": network.size,
                "num_classes": network.num_classes,
            }
            rows.append(row | {"parameters": _count(model) - _count_se(model), "se_parameters": _count(model)})
    return rows


def _show(name: str, options: dict[str, Any], json: bool) -> None:
    import torch

    from senet.insertion import insertions
    from senet.models import create_model, plain_name

    with torch.device("meta"):
        model: Any = create_model(name, **options)
    se_parameters = _count_se(model)
    sites = insertions(model)
    stages = []
    for number, layer in enumerate(model.stage_names, 2):
        units = getattr(model, layer)
        here = [site for site in sites if site.name.startswith(f"{layer}.")]
        stages.append(
            {
                "stage": number,
                "module": layer,
                "units": len(units),
                "channels": model.feature_info[number - 1]["num_chs"],
                "stride": model.feature_info[number - 1]["reduction"],
                "sites": len(here),
                "hidden": here[0].se.hidden_channels if here else 0,
                "parameters": _count(units) - _count_se(units),
                "se_parameters": _count_se(units),
            }
        )
    total = _count(model)
    answer = {
        "name": name,
        "plain": plain_name(name),
        "parameters": total,
        "plain_parameters": total - se_parameters,
        "se_parameters": se_parameters,
        "sites": [site.name for site in sites],
        "stages": stages,
    }
    if json:
        print_json(answer)
        return
    columns = ["module", "stage", "units", "channels", "stride", "SE sites", "SE hidden", "parameters", "of SE"]
    keys = ("module", "stage", "units", "channels", "stride", "sites", "hidden", "parameters", "se_parameters")
    table(name, columns, [[stage[key] for key in keys] for stage in stages])
    stdout.print(
        f"\n{total:,} parameters, of which {se_parameters:,} ({100 * se_parameters / total:.1f} %) are of SE; "
        f"{total - se_parameters:,} in {plain_name(name)}, its plain twin."
    )
    if sites:
        stdout.print(f"SE stands at {sites[0].name} and {len(sites) - 1} more.")


def _count(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


def _count_se(model: Any) -> int:
    return sum(p.numel() for key, p in model.named_parameters() if ".se." in key)


def _more(row: dict[str, Any]) -> str:
    return f"{100 * (row['se_parameters'] / row['parameters'] - 1):.1f} %"

"""`senet models`: list networks, show one by stage, or compare counted costs with the paper's tables."""

from typing import Annotated, Any

import typer

from senet.cli.common.completion import complete_network
from senet.cli.common.console import JsonOption, SetOption, note, print_json, progress, stdout, table
from senet.cli.common.networks import network_options
from senet.cli.common.outputs import check_file_option
from senet.cli.common.paper_lines import as_data, print_lines

__all__ = ["models"]


def models(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="[PATTERN | NAME]",
            help="A glob such as 'se_resnet*' or 'timm/se*', or one network's name.",
            autocompletion=complete_network,
        ),
    ] = "*",
    paper: Annotated[
        bool,
        typer.Option(
            "--paper", help="Show the paper's parameters and multiply-adds alongside the values counted here."
        ),
    ] = False,
    plot: Annotated[
        str | None,
        typer.Option(metavar="OUT.png", help="Plot the parameters and multiply-adds of network NAME by stage."),
    ] = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """List networks; or show one by stage, with its cost, its plain twin's, and the paper's figures."""
    from senet.models import is_of_library, list_models
    from senet.models.libraries import unknown_network

    check_file_option("--plot", plot, suffixes=(".png",))
    if paper:
        if pattern != "*" or plot or set_:
            raise ValueError("--paper shows the paper's tables for all networks; leave out NAME, --plot and --set")
        _show_paper(json)
        return
    names = list_models(pattern)
    of_library = is_of_library(pattern.rpartition(":")[2])
    if pattern in names or (of_library and not set(pattern) & set("*?[")):
        _show(pattern, network_options(set_), plot, json)
        return
    if not names:
        every = f"{pattern.partition('/')[0]}/*" if of_library else "*:*" if ":" in pattern else "*"
        command = "senet models" if every == "*" else f"senet models '{every}'"
        raise ValueError(f"{unknown_network('network', pattern, list_models(every))} `{command}` lists all.")
    for option, given in (("--set", set_), ("--plot", plot)):
        if given:
            raise ValueError(f"{option} requires the name of one network, and {pattern!r} is a pattern")
    from senet.utils.sizes import size_text

    if "/" in pattern or ":" in pattern:
        rows = [_library_row(name) for name in names]
        if json:
            print_json(rows)
            return
        cells = [[row["name"], size_text(row["size"]), row["num_classes"]] for row in rows]
        table("", ["network", "image", "classes"], cells)
        return
    rows = _rows(names)
    if json:
        print_json(rows)
        return
    table(
        "",
        ["network", "with SE", "image", "parameters", "with SE", "more"],
        [[r["name"], r["se_name"], size_text(r["size"]), r["parameters"], r["se_parameters"], _more(r)] for r in rows],
        text=2,
    )


def _library_row(name: str) -> dict[str, Any]:
    """Return what a library says about a network, which is not built: there are hundreds."""
    from senet.models import network, plain_name

    row = network(plain_name(name))
    return {"name": name, "size": row.size, "num_classes": row.num_classes}


def _rows(names: list[str]) -> list[dict[str, Any]]:
    import torch

    from senet.graph.se_modules import find_se
    from senet.models import CATALOGUE, create_model, plain_name

    rows = []
    with torch.device("meta"):
        for name in dict.fromkeys(map(plain_name, names)):
            network = CATALOGUE[name]
            model = create_model(network.se_name)
            of_se = sum(_count(part) for unit in find_se(model) for part in unit.parts)
            row = {
                "name": name,
                "se_name": network.se_name,
                "size": network.size,
                "num_classes": network.num_classes,
            }
            rows.append(row | {"parameters": _count(model) - of_se, "se_parameters": _count(model)})
    return rows


def _count(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


def _more(row: dict[str, Any]) -> str:
    return f"{100 * (row['se_parameters'] / row['parameters'] - 1):.1f} %"


def _show(name: str, options: dict[str, Any], plot: str | None, json: bool) -> None:
    from senet.costs.cost import cost
    from senet.costs.tables import build_on_meta, compare_with_paper, cost_by_stage, image_size
    from senet.graph.se_modules import find_se
    from senet.insertion.insert import remove
    from senet.models import is_detector, plain_name
    from senet.paper import COST_TABLES, fitting

    model: Any = build_on_meta(name, **options)
    size = image_size(model)
    if is_detector(name):
        note("the cost is that of the backbone with its feature pyramid: that of the heads depends on the image")
        model = model.backbone
    found = cost(model, size)
    units = {unit.name: unit for unit in find_se(model)}
    stages = [
        {
            "stage": stage.stage,
            "module": stage.module,
            "units": stage.units,
            "channels": stage.channels,
            "resolution": list(stage.resolution),
            "stride": size[1] // stage.resolution[0] if stage.stage is not None else None,
            "sites": len(stage.sites),
            "hidden": units[stage.sites[0]].hidden_channels if stage.sites else 0,
            **_parts(stage),
        }
        for stage in cost_by_stage(found)
    ]
    # A network of another library with SE has no plain twin.
    ours = all(unit.site is not None for unit in units.values())
    twin = found if not units else cost(remove(model), size) if ours else None
    answer = {
        "name": name,
        "plain": plain_name(name) if ours else None,
        "input_size": list(size),
        **_parts(found),
        "saved_bytes": found.saved_bytes,
        "plain_saved_bytes": None if twin is None else twin.saved_bytes,
        "sites": [unit.site or unit.name for unit in units.values()],
        "stages": stages,
        "paper": [as_data(compared) for compared in compare_with_paper(fitting(name, options, COST_TABLES))],
    }
    if plot is not None:
        _draw(answer, plot)
    if json:
        print_json(answer)
    else:
        _print(answer)
    if plot is not None:
        note(f"drew {plot}")


def _parts(found: Any) -> dict[str, int]:
    """Return the costs of a stage or network: all, plain and of SE."""
    return {
        "parameters": found.plain.params + found.se.params,
        "plain_parameters": found.plain.params,
        "se_parameters": found.se.params,
        "macs": found.plain.macs + found.se.macs,
        "plain_macs": found.plain.macs,
        "se_macs": found.se.macs,
        "other": found.plain.other + found.se.other,
        "se_other": found.se.other,
    }


def _print(answer: dict[str, Any]) -> None:
    columns = ["module", "stage", "units", "channels", "map", "SE sites", "SE hidden"]
    columns += ["parameters", "of SE", "multiply-adds", "of SE"]
    keys = ("units", "channels", "sites", "hidden", "parameters", "se_parameters", "macs", "se_macs")
    rows = []
    for stage in answer["stages"]:
        units, channels, *counts = ("-" if stage[key] is None else stage[key] for key in keys)
        number = "head" if stage["stage"] is None else stage["stage"]
        rows.append([stage["module"], number, units, channels, _by(stage["resolution"]), *counts])
    table(answer["name"], columns, rows)
    total, of_se = answer["parameters"], answer["se_parameters"]
    plain = f"in {answer['plain']}, its plain twin" if answer["plain"] else "without it"
    share = f"{of_se:,} of them ({100 * of_se / total:.1f} %) in SE; {answer['plain_parameters']:,} {plain}"
    stdout.print(f"\n{total:,} parameters, {share if of_se else 'none in SE'}.")
    macs, of_se = answer["macs"], answer["se_macs"]
    stdout.print(
        f"{macs:,} multiply-adds for an image of {_by(answer['input_size'][1:])}, {of_se:,} of them "
        f"({100 * of_se / max(1, macs):.2g} %) in SE."
    )
    stdout.print(f"{answer['other']:,} elements written by all other operations, {answer['se_other']:,} of them in SE.")
    saved, plain_saved = answer["saved_bytes"], answer["plain_saved_bytes"]
    ratio = f", {saved / plain_saved:.3f} times the plain twin's" if plain_saved and answer["sites"] else ""
    stdout.print(f"Training saves {saved / 1e6:.1f} MB of activations for backward for each image{ratio}.")
    if answer["sites"]:
        stdout.print(f"SE at {answer['sites'][0]} and {len(answer['sites']) - 1} more sites.")
    print_lines(answer["paper"], together=True)


def _by(resolution: list[int]) -> str:
    return "x".join(map(str, resolution)) or "-"


def _draw(answer: dict[str, Any], path: str) -> None:
    from senet.utils.figures import draw_cost

    stages = []
    for stage in answer["stages"]:
        name = "head" if stage["stage"] is None else f"stage {stage['stage']}"
        params, macs = ((stage[f"plain_{what}"], stage[f"se_{what}"]) for what in ("parameters", "macs"))
        where = _by(stage["resolution"]) if stage["resolution"] else ""
        stages.append((f"{name}\n{where}", params, macs))
    draw_cost(stages, path, f"{answer['name']}, {_by(answer['input_size'][1:])}")


def _show_paper(json: bool) -> None:
    from senet.costs.tables import compare_with_paper
    from senet.paper import COST_TABLES, entries

    wanted = entries(*COST_TABLES)
    compared = compare_with_paper(wanted)
    lines = [as_data(next(compared)) for _ in progress(range(len(wanted)), len(wanted), "count")]
    if json:
        print_json(lines)
    else:
        print_lines(lines)

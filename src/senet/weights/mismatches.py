"""Messages about weights that do not match a network: the differences, a remedy, and what was read of the file."""

from collections import Counter

from torch import nn

from senet.utils.arguments import argument, in_python_or
from senet.weights.blocks import gates
from senet.weights.checkpoint import Checkpoint
from senet.weights.matching import Match, classifier_prefix

__all__ = ["describe_origin", "mismatch_message", "suggest_remedy"]


def mismatch_message(source: str, missing: list[str], match: Match) -> str:
    """Return the counts and first names of missing, unexpected and differently shaped tensors."""
    mismatches = {"missing": missing, "unexpected": match.unexpected, "of another shape": match.shapes}
    found = [
        f"{len(keys)} {what} ({'; '.join(keys[:3])}{'; ...' if len(keys) > 3 else ''})"
        for what, keys in mismatches.items()
        if keys
    ]
    return f"{source} does not fit the network: {', '.join(found) or 'no tensor name matches'}"


def suggest_remedy(model: nn.Module, checkpoint: Checkpoint, missing: list[str], match: Match) -> str:
    """Return a remedy if a single cause explains all mismatches."""
    of_se = [all(".se." in name for name in names) for names in (missing, match.unexpected)]
    head = classifier_prefix(model) if any(isinstance(module, nn.Linear) for module in model.modules()) else "fc."
    in_head = all(name.startswith(head) for name in (*missing, *match.unexpected, *match.shapes))
    if in_head and (match.shapes or missing or match.unexpected):
        return in_python_or(
            "; head=False keeps the network's classifier, num_classes= builds another",
            "; --set network.num_classes=N builds another classifier",
        )
    if missing and of_se[0] and not match.shapes and not match.unexpected and not gates(checkpoint.tensors):
        return f"; these are plain weights: {argument('missing', 'gates')} loads them into SE that starts as identity"
    if match.unexpected and of_se[1] and not missing and not match.shapes:
        built = getattr(model, "architecture", None) or {"name": "resnet50"}
        return f"; these weights have SE: use the network se_{built['name']}"
    if match.shapes and all(".se." in shape for shape in match.shapes) and not missing:
        python = ": create_model(..., weights=) reads it from the weights"
        return f"; SE has another number of hidden units{in_python_or(python, '')}"
    return f"; the format is {checkpoint.form.name}: check that these weights are for this network"


def describe_origin(checkpoint: Checkpoint) -> str:
    """Describe which tensors of the file were read, and under which names."""
    contents, text = checkpoint.contents, ""
    if contents.prefix:
        text += f"; the prefix {contents.prefix!r} of all names was removed"
    if contents.part:
        entry = contents.part.rstrip(".")
        text += (
            f"; the prefix {contents.part!r} of some names was removed: {argument('entry', entry)} selects only those"
        )
    count = Counter(name.partition(".")[0] for name in contents.tensors if "." in name)
    first, most = count.most_common(1)[0] if count else ("", 0)
    if len(contents.tensors) > most > len(contents.tensors) / 2:
        text += (
            f"; {most} of its {len(contents.tensors)} names begin with '{first}.': {argument('entry', first)} selects "
            f"only those"
        )
    elif count and most == len(contents.tensors):
        text += f"; all its names begin with '{first}.'"
    if contents.others:
        text += f"; the file also has {', '.join(contents.others)}: {argument('entry', contents.others[0])} selects it"
    return text

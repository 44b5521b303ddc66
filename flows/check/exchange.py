"""Whether what is extracted, merged, sent and absorbed fits together, and fits the agents and their data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ...specs.problems import Path
from ...specs.schema import Recipe, Spec
from ...tasks.choice import Choice
from .places import Finding, in_round
from .recipe import Exchange, exchanges, received

NEEDED = {"labels": "labels", "keys": "features", "masked": "masked rows"}
NEEDED_AS = {"labels": "true", "keys": "features", "masked": "true"}
"""What a rule may need of an extract besides its values, and how to write it."""
FOR_MODELS = ("float32", "float16", "svd")
FOR_ROWS = ("float32", "float16", "int8", "bits", "top-k")
ALTERNATIVES = (
    "take feddf, fedproto, fd, fedmd or dfml, which mix architectures, or fml or fedkd, which share a companion"
)


def of_exchanges(recipe: Recipe) -> Iterator[Finding]:
    """Find rules, encodings and ways to absorb that do not take what they are given."""
    known = exchanges(recipe)
    for exchange in known:
        if exchange.extract is not None:
            yield from _rule(exchange, exchange.extract)
            yield from _door(exchange, exchange.extract)
            yield from _encodings(exchange)
        following = next((e.index for e in known if e.index > exchange.index), len(recipe.round))
        after = recipe.round[exchange.index : following]
        if not any(step.name in ("absorb", "store") for step in after):
            message = "what is merged here is never used"
            yield Finding(in_round(exchange.index, "aggregate"), message, "put an `absorb` or a `store` after it")
    for index, step in enumerate(recipe.round):
        exchange_in_hand = received(known, index)
        if step.name == "absorb" and exchange_in_hand is not None and exchange_in_hand.extract is not None:
            yield from _absorb(index, step.parameters, exchange_in_hand, exchange_in_hand.extract)


def _rule(exchange: Exchange, extract: int) -> Iterator[Finding]:
    """Find a rule that does not take what is extracted; each rule's parameters say what it takes."""
    rule, form, made = exchange.rule, exchange.form, exchange.made
    by, source = in_round(exchange.index, "aggregate", "by"), in_round(extract, "extract")
    scale = getattr(made, "scale", "logits")
    if form not in rule.takes:
        message = f"the rule {rule.by} takes {' or '.join(rule.takes)}, and {form} are extracted"
        yield Finding(by, message, f"extract {rule.takes[0]}, or aggregate by mean", ((*source, "knowledge"),))
    elif rule.scale is not None and scale != rule.scale:
        given = "logits before the softmax" if scale == "logits" else scale
        message = f"the rule {rule.by} takes {rule.scale}, and {given} are extracted"
        yield Finding((*source, "scale"), message, f"write `scale: {rule.scale}`", (by,))
    else:
        for key in rule.needs:
            if not getattr(made, key, None):
                verb = "takes" if key == "masked" else "learns from"
                message = f"the rule {rule.by} {verb} {NEEDED[key]}, and no {NEEDED[key]} are told"
                yield Finding(source, message, f"write `{key}: {NEEDED_AS[key]}` in the extract", (by,))
    if not rule.side_by_side and getattr(made, "source", "") == "private" and form == "logits":
        message = f"no two agents score the same private sample, so {rule.by} merges nothing"
        hint = "aggregate `by: collect`, for a memory at the top, or extract `from: public`"
        yield Finding(by, message, hint, ((*source, "from"),))
    if rule.exclude_self and not rule.one_out:
        message = f"an agent's own share can be taken out of a mean, not out of what {rule.by} makes"
        path = in_round(exchange.index, "aggregate", "exclude_self")
        yield Finding(path, message, "write `by: mean`, or leave exclude_self out", (by,))
    if getattr(made, "masked", False) and "masked" not in rule.needs:
        message = f"{rule.by} cannot read masked rows"
        yield Finding(by, message, "aggregate `by: secure_mean`, or leave `masked` out", ((*source, "masked"),))
    elif getattr(made, "masked", False) and (rule.filters or rule.valence):
        path = in_round(exchange.index, "aggregate", "filters" if rule.filters else "valence")
        yield Finding(path, "nobody sees what masked rows hold", "leave it out, or leave `masked` out")
    if rule.by == "train_on_features":
        yield from _features(exchange, by, source)


def _features(exchange: Exchange, by: Path, source: Path) -> Iterator[Finding]:
    """Find features that the rule train_on_features would miss in some rounds."""
    if getattr(exchange.made, "keys_when", None) is not None:
        message = "the rule train_on_features learns from features each round, and they are told in some rounds alone"
        yield Finding((*source, "keys_when"), message, "leave it out", (by,))


def _door(exchange: Exchange, extract: int) -> Iterator[Finding]:
    """Find filters and valences of what has no rows, or of what a share is to be taken out of again."""
    rule, said = exchange.rule, {"filters": exchange.rule.filters, "valence": exchange.rule.valence}
    for key, value in (said | {"select": rule.select}).items():
        if value and exchange.form == "parameters":
            message = f"{key} looks at rows, and parameters are extracted"
            path = in_round(exchange.index, "aggregate", key)
            yield Finding(path, message, "remove it", (in_round(extract, "extract", "knowledge"),))
    first = next((key for key, value in said.items() if value), None)
    if rule.exclude_self and first is not None:
        message = f"an agent's own share cannot be taken out again of what {first} let through or weighted"
        paths = [in_round(exchange.index, "aggregate", key) for key in ("exclude_self", first)]
        yield Finding(paths[0], message, f"leave exclude_self or {first} out", (paths[1],))


def _encodings(exchange: Exchange) -> Iterator[Finding]:
    if exchange.share is None:
        return
    is_model = exchange.form == "parameters"
    scaled = getattr(exchange.made, "scale", None) == "probabilities"
    for way in ("up", "down"):
        name = getattr(exchange.encodings, way).name
        path = in_round(exchange.share, "share", way)
        if way == "up" and getattr(exchange.made, "masked", False) and name != "float32":
            yield Finding(path, f"masked rows are whole numbers, which {name} would change", "write `up: float32`")
        elif is_model and name not in FOR_MODELS:
            message = f"parameters are not sent as {name}; expected one of {', '.join(FOR_MODELS)}"
            yield Finding(path, message)
        elif not is_model and name == "svd":
            message = f"{exchange.form} are not sent as svd; expected one of {', '.join(FOR_ROWS)}"
            yield Finding(path, message)
        elif name == "bits" and exchange.form != "logits":
            yield Finding(path, f"bits are for probabilities, and {exchange.form} are none", "take int8 or float16")
        elif name == "bits" and not scaled and exchange.rule.by != "sharpened_mean":
            scale = in_round(exchange.extract or 0, "extract", "scale")
            message = "bits are for probabilities, and logits before the softmax are extracted"
            yield Finding(path, message, "write `scale: probabilities` in the extract, or take int8", (scale,))


def _absorb(index: int, said: Any, exchange: Exchange, extract: int) -> Iterator[Finding]:
    by, form = in_round(index, "absorb", "by"), exchange.form
    takes = getattr(said, "takes", None)
    if takes is not None and form not in takes:
        message = f"{said.by} takes {' or '.join(takes)}, and {form} were received"
        yield Finding(by, message, f"extract {takes[0]}", (in_round(extract, "extract", "knowledge"),))
    elif takes is not None and said.of != exchange.made.of:
        message = f"rows of the {exchange.made.of} are not for the {said.of}"
        path, source = in_round(index, "absorb", "of"), in_round(extract, "extract", "of")
        yield Finding(path, message, f"write `of: {exchange.made.of}`", (source,))
    elif said.by == "replace" and form != "parameters":
        hint = "absorb by distil" if form == "logits" else f"`store` them, and train with the term `{form}`"
        yield Finding(by, f"replace takes parameters, and {form} were received", hint)
    elif said.by == "replace" and said.of != exchange.made.of:
        message = f"parameters of the {exchange.made.of} cannot replace those of the {said.of}"
        path, source = in_round(index, "absorb", "of"), in_round(extract, "extract", "of")
        yield Finding(path, message, f"write `of: {exchange.made.of}`", (source,))
    elif said.by == "mutual":
        yield from _mutual(index, exchange, extract)
    elif said.by == "distil" and form != "logits":
        hint = "absorb by replace" if form == "parameters" else f"`store` them, and train with the term `{form}`"
        yield Finding(by, f"distil takes logits, and {form} were received", hint)
    elif said.by == "distil" and exchange.made.source == "private":
        message = "distil learns on public samples, and logits of private ones were received"
        hint = "`store` them, and train with the term `sample_logits`; or extract `from: public`"
        yield Finding(by, message, hint, (in_round(extract, "extract", "from"),))
    elif said.by == "distil":
        path, source = in_round(index, "absorb", "loss"), in_round(extract, "extract", "scale")
        if said.loss == "soft_cross_entropy" and not exchange.is_probabilities:
            message = "the loss soft_cross_entropy takes probabilities, and logits were received"
            yield Finding(path, message, "extract with `scale: probabilities`, or take the loss kl", (source,))
        elif said.loss in ("kl", "mse", "l1") and exchange.is_probabilities:
            message = f"the loss {said.loss} takes logits, and probabilities were received"
            yield Finding(path, message, "write `loss: soft_cross_entropy`, or extract logits", (source,))


def _mutual(index: int, exchange: Exchange, extract: int) -> Iterator[Finding]:
    by, form, rule = in_round(index, "absorb", "by"), exchange.form, exchange.rule
    source = in_round(extract, "extract")
    if form != "parameters":
        message = f"mutual learning takes parameters, and {form} were received"
        yield Finding(by, message, "extract parameters, or take another way to absorb", (source,))
    elif exchange.made.of != "model":
        message = f"mutual learning is between models that agents have as their own, and the {exchange.made.of} is sent"
        hint = "write `of: model`, or learn from the companion by the term `mutual` of `train`"
        yield Finding((*source, "of"), message, hint, (by,))
    elif rule.weight != "samples":
        path = in_round(exchange.index, "aggregate", "weight")
        yield Finding(path, "mutual learning weighs models by their samples", "write `weight: samples`", (by,))


def of_public(spec: Spec) -> Iterator[Finding]:
    """Find steps that need public samples, or their labels, where there are none."""
    users = list(_public_users(spec.recipe))
    if users and spec.data.public is None:
        (first, _), rest = users[0], tuple(path for path, _ in users[1:])
        names = list(dict.fromkeys(name for _, name in users))
        message = f"{_listed(names)} need{'s' if len(names) == 1 else ''} public samples, and the spec sets none aside"
        yield Finding(first, message, "add `public: {share: 0.2}` to `data`", (*rest, ("data", "public")))
    if spec.data.public is None or spec.data.public.labelled:
        return
    telling = [
        (("recipe", "round", index, "extract", "labels"), "`extract` with labels")
        for index, step in enumerate(spec.recipe.round)
        if step.name == "extract" and step.parameters.knowledge == "logits"
        if step.parameters.labels and step.parameters.source == "public"
    ]
    for wanted in ([user for user in users if user[1] == "`train` on public"], telling):
        if wanted:
            message = f"{wanted[0][1]} needs the labels of the public samples"
            also = tuple(path for path, _ in wanted)
            yield Finding(("data", "public", "labelled"), message, "write `labelled: true`", also)


def _public_users(recipe: Recipe) -> Iterator[tuple[Path, str]]:
    for part, steps in (("start", recipe.start), ("round", recipe.round)):
        for index, step in enumerate(steps):
            said, path = step.parameters, ("recipe", part, index, step.name)
            if step.name == "extract" and getattr(said, "source", "") == "public":
                yield (*path, "from"), "`extract` from public"
            elif getattr(said, "on", "") == "public":
                yield (*path, "on"), f"`{step.name}` on public"
            elif step.name == "aggregate" and said.by == "distilled":
                yield (*path, "by"), "the rule distilled"
            asking = step.name == "retrieve"
            key = getattr(said.by.parameters if asking else said, "keys", None)
            if key is not None and key.parameters.needs_public:
                yield (*path, "by" if asking else "keys"), f"the keys {key.name}"


def of_architectures(spec: Spec) -> Iterator[Finding]:
    """Find parameters that would be averaged over models of different architectures."""
    groups = {group.name: group.model for group in spec.agents}
    if len({identity(model) for model in groups.values()}) < 2:
        return
    for exchange in exchanges(spec.recipe):
        made = exchange.made
        apart = _only_visit(spec.recipe, exchange)
        if exchange.form == "parameters" and exchange.rule.by == "mean" and made.of == "model" and not apart:
            message = f"parameters of different architectures have no mean ({described(groups)})"
            yield Finding(in_round(exchange.extract or 0, "extract"), message, ALTERNATIVES)


def _only_visit(recipe: Recipe, exchange: Exchange) -> bool:
    """Whether what is received is absorbed by mutual learning alone, for which architectures need not be alike."""
    known = exchanges(recipe)
    absorbing = [
        s.parameters for i, s in enumerate(recipe.round) if s.name == "absorb" and received(known, i) == exchange
    ]
    return bool(absorbing) and all(said.by == "mutual" for said in absorbing)


def identity(model: Choice) -> str:
    """Return a text that two models share if and only if their architectures are equal on the same data."""
    return json.dumps(model.model_dump(mode="json"), sort_keys=True)


def described(models: dict[str, Choice]) -> str:
    """Return who has which model, with the parameters where the name alone does not tell them apart."""
    kinds = {identity(model): model.name for model in models.values()}
    ambiguous = len(set(kinds.values())) < len(kinds)
    return _listed([f"{name}: {_model_text(model) if ambiguous else model.name}" for name, model in models.items()])


def _model_text(model: Choice) -> str:
    values = model.parameters.model_dump(mode="json")
    return f"{model.name}({', '.join(f'{key}={value}' for key, value in values.items())})"


def _listed(texts: list[str], most: int = 6) -> str:
    shown = texts if len(texts) <= most else [*texts[: most - 1], f"{len(texts) - most + 1} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"

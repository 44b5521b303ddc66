"""Whether a spec can be run on sites: agents that live somewhere, and nothing that needs the data in one place."""

from __future__ import annotations

from collections.abc import Iterator

from ...specs.problems import one_of, suggestion
from ...specs.schema import Spec
from ...tasks.extract import EXTRACTS
from ...tasks.knowledge import FORMS
from .places import Finding


def of_sites(spec: Spec) -> Iterator[Finding]:
    """Find agents without a site, sites without agents, and what cannot be had where data stay with sites."""
    sites = spec.engine.sites
    if spec.engine.kind != "sites":
        return
    for index, group in enumerate(spec.agents):
        if group.site is None:
            yield Finding(("agents", index), f"{group.name} lives nowhere", f"write `site:`, {one_of(list(sites))}")
        elif group.site not in sites:
            hint = suggestion(group.site, sites) or f"expected {one_of(list(sites))}"
            yield Finding(("agents", index, "site"), f"engine.sites has no {group.site!r}", hint)
    for site in sites:
        if all(group.site != site for group in spec.agents):
            message = f"no agents live at {site}"
            yield Finding(("engine", "sites", site), message, "give a group of agents this `site`, or remove it")
    if spec.setting != "fl":
        message = f"the setting {spec.setting} needs its data in one place, and sites keep theirs"
        yield Finding(("setting",), message, "take another engine", (("engine",),))
    if spec.continue_ != "anew":
        message = "what an earlier run left is with the sites and cannot be gone on from yet"
        yield Finding(("continue",), message, "write `continue: anew`")
    if spec.data.public is not None and spec.data.public.share is not None:
        message = "public samples cannot be a share of what sites keep to themselves"
        yield Finding(("data", "public", "share"), message, "write `dataset:`, one that every site has a copy of")
    for index, step in enumerate(spec.recipe.round):
        if step.name != "extract" or getattr(step.parameters, "source", None) not in ("private", "bridge"):
            continue
        if FORMS[EXTRACTS[step.parameters.knowledge].name].keyed_by == "sample":
            message = "rows about single private samples do not leave their site"
            yield Finding(("recipe", "round", index, "extract"), message, "extract from public samples, or by class")

"""Knowledge distillation between learners that cannot pool their data.

The repository root is the package: see ``docs/`` and the README.
"""

__version__ = "0.1.0"

EXTENSIONS: dict[str, tuple[str, ...]] = {
    "kinds": ("codistill.tasks.samples", "codistill.graphs.kind"),
    "datasets": ("codistill.graphs.datasets",),
    "models": ("codistill.graphs.models",),
    "trains": ("codistill.graphs.train", "codistill.graphs.unlearn"),
    "extracts": ("codistill.graphs.extracts",),
    "aggregates": ("codistill.graphs.aggregates",),
    "absorbs": ("codistill.graphs.absorbs", "codistill.graphs.translated"),
    "trackers": ("codistill.flows.trackers.tensorboard", "codistill.flows.trackers.mlflow"),
}
"""Registry -> modules that ship and are imported when it is first asked, as those of outside entry points are."""

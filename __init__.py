"""Knowledge distillation between learners that cannot pool their data.

The repository root is the package: see ``docs/`` and the README.
"""

__version__ = "0.1.0"

"""What a flow is made of: one module per operation, plus agents, memory, knowledge, data, models."""

from . import operations  # noqa: F401  # every rule and term is entered, whichever module is asked for first

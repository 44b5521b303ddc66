"""Valence: how much an agent makes of each contributor, and rows that weigh by it.

Importing this package registers every way to find it out (``VALENCES``).
"""

from .kinds import VALENCES, ValenceChoice, valence
from .shares import weighted_by_valence

__all__ = ["VALENCES", "ValenceChoice", "valence", "weighted_by_valence"]

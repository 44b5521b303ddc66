"""What the schema cannot see, checked before anything runs."""

from .check import carries, check, check_with, notes, problems_of_holding

__all__ = ["carries", "check", "check_with", "notes", "problems_of_holding"]

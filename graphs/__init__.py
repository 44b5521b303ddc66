"""Federated graph knowledge embedding. Holds nothing yet: the setting ``fkge`` is refused by the schema."""

"""Federated graph knowledge embedding: clients whose knowledge graphs share entities."""

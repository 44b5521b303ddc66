"""What a flow is made of: one module per operation, plus agents, memory, knowledge, data, models."""

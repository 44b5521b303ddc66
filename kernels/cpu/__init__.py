"""What is fast on a CPU: one graph, compiled when it pays."""

"""One file for each operation: ``cases(device, quick)`` yields its shapes, with everyone who can do it."""

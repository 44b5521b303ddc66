"""Readable torch: any device, any dtype; float64 is the oracle of the other back ends."""

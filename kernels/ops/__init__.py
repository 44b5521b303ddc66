"""The operations as torch sees them: ``torch.library`` operators with fake and autograd registrations."""

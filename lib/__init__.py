"""Spiking networks on spoken words, posteriors over their weights, and the shape of their loss."""

"""Activation: what each destination should know of each person, and how to bring it there."""

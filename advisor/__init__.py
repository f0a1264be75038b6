"""Decide: constraints and hardware to a ranked, explained plan. Pure: no I/O, no clock, no framework."""

"""The faults, a module for each group."""

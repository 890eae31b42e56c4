"""Other tools for the same job, each driven as its own documentation shows, in an environment of its own."""

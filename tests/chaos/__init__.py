"""The chaos suite: every promise is attacked with real processes, and judged from the files, the server and the exit."""

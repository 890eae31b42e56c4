"""``python -m batchchat``."""

from batchchat.cli import main

main()

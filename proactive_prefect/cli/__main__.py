"""`python -m proactive_prefect.cli`: the `proactive` command, where the script itself is not on the path."""

from . import main

if __name__ == "__main__":
    main()
